"""python -m bench.control.agents COUNT TARGET SERVER_NAME ROOTS [TOKEN]: simulated agents, a connection for each.

They take what they are sent, acknowledge it and keep nothing. Prints one JSON line when all have had the whole state,
and one for each later state that reached them all: its revision and when it reached each, by time.monotonic(), which is
one clock for all processes of a machine. Ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

from ambient.xds import names
from ambient.xds.client import METHOD, NodeName
from ambient.xds.dial import ControlPlane, dial
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.trust import Trust


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


async def main(count: int, control: ControlPlane) -> None:
    crowd = Crowd(count)
    tasks = [asyncio.create_task(agent(control, number, crowd), name=f"agent {number}") for number in range(count)]
    tasks.append(asyncio.create_task(asyncio.to_thread(_until_input_ends), name="input"))
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()


def _until_input_ends() -> None:
    sys.stdin.read()


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    number, target, server_name, roots, *token = sys.argv[1:]
    asyncio.run(
        main(
            int(number),
            ControlPlane(
                targets=(target,),
                server_name=server_name,
                trust=Trust(Path(roots)),
                token=Path(token[0]) if token else None,
                connect_s=10,  # many at once, on few cores
            ),
        )
    )
