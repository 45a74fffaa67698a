"""python -m bench.control.agents COUNT TARGET SERVER_NAME ROOTS [TOKEN]: simulated agents, a connection for each.

They take what they are sent, acknowledge it and keep nothing. Prints one JSON line when all have had the whole state,
and one for each later state that reached them all: its revision and when it reached each, by time.monotonic(), which is
one clock for all processes of a machine. Ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import threading
import time
from collections import defaultdict
from pathlib import Path

import click

from ambient.cli import names as cli_names
from ambient.cli.errors import Failure
from ambient.xds import names
from ambient.xds.call import RpcFailed
from ambient.xds.client import METHOD, NodeName
from ambient.xds.dial import ControlPlane, dial
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.trust import Trust
from bench import command

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


class Crowd:
    """How far all of them are."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._begun = time.monotonic()
        self._synced = 0
        self._arrivals: dict[str, list[float]] = defaultdict(list)

    def synced(self) -> None:
        self._synced += 1
        if self._synced == self.count:
            _say({"synced_s": time.monotonic() - self._begun})

    def reached(self, revision: str) -> None:
        arrivals = self._arrivals[revision]
        arrivals.append(time.monotonic())
        if len(arrivals) == self.count:
            _say({"revision": revision, "arrivals": arrivals})


async def agent(control: ControlPlane, number: int, crowd: Crowd) -> None:
    """Raises RpcFailed when the connection ends: what was measured then means nothing."""
    async with dial(control, random.Random(number)) as (channel, metadata):
        call = channel.call(METHOD, metadata)
        for url in names.TYPES:
            first = pb.DeltaDiscoveryRequest(type_url=url)
            first.node.CopyFrom(NodeName(node=f"node-{number}").message())
            await call.send(first.SerializeToString())
        answered: set[str] = set()
        synced = False
        while True:
            response = pb.DeltaDiscoveryResponse.FromString(await call.receive() or b"")
            url, revision, more = response.type_url, response.system_version_info, response.more
            if synced and not more:
                crowd.reached(revision)
            await call.send(pb.DeltaDiscoveryRequest(type_url=url, response_nonce=response.nonce).SerializeToString())
            answered.add(url)
            if not synced and not more and len(answered) == len(names.TYPES):
                synced = True
                crowd.synced()


async def run(count: int, control: ControlPlane) -> None:
    crowd = Crowd(count)
    tasks = [asyncio.create_task(agent(control, number, crowd), name=f"agent {number}") for number in range(count)]
    tasks.append(asyncio.create_task(_input_ended(), name="input"))
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    for found in await asyncio.gather(*done, *rest, return_exceptions=True):
        if isinstance(found, Exception):  # the others have failed alike
            raise found


async def _input_ended() -> None:
    """Looked at by a thread that nobody waits for: an agent that fails ends all of this, whatever the input does."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        while os.read(0, 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, name="input", daemon=True).start()
    await ended.wait()


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


@click.command(cls=command.Command)
@click.argument("count", type=click.IntRange(1))
@click.argument("target", type=cli_names.UPSTREAM, metavar="TARGET")
@click.argument("server_name")
@click.argument("roots", type=FILE)
@click.argument("token", type=FILE, required=False)
def main(count: int, target: str, server_name: str, roots: Path, token: Path | None) -> None:
    """COUNT simulated agents of the control plane at TARGET, whose certificate has SERVER_NAME and is of ROOTS."""
    plane = ControlPlane(
        targets=(target,),
        server_name=server_name,
        trust=Trust(roots),
        token=token,
        connect_s=10,  # many at once, on few cores
    )
    try:
        asyncio.run(run(count, plane))
    except RpcFailed as error:
        raise Failure(str(error)) from error


if __name__ == "__main__":
    main()
