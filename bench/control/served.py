"""python -m bench.control.served PODS FOLDER: a control plane that serves a made-up World and changes it when told to.

Writes FOLDER/roots.pem. Prints one JSON line when it serves and one for each change that a line on its input, "pod" or
"policy", asks for. Ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import trustme

from ambient.identity.signing import ServerCertificate
from ambient.xds.caller import Caller
from ambient.xds.credentials import Renewed
from ambient.xds.server import DiscoveryServer
from ambient.xds.serving import Server
from bench import command
from bench.control import worlds

NAME = "ambient-control.bench"


async def serve(pods: int, folder: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert(NAME)
    authority.cert_pem.write_to_path(str(folder / "roots.pem"))
    world = worlds.world(pods)
    begun = time.monotonic()
    discovery = DiscoveryServer(_anybody, "bench")
    discovery.publish(world)
    server = Server(discovery.handlers())
    chain = leaf.cert_chain_pems[0].bytes()
    own = ServerCertificate(leaf.private_key_pem.bytes(), chain, datetime.max.replace(tzinfo=UTC))
    listener = socket.create_server(("127.0.0.1", 0))
    await server.start(listener, Renewed(lambda: own))
    _say({"port": listener.getsockname()[1], "ready_s": time.monotonic() - begun})
    number = 0
    while kind := (await asyncio.to_thread(sys.stdin.readline)).strip():
        world = worlds.change(world, kind, number)
        number += 1
        begun = time.monotonic()
        discovery.publish(world)
        _say({"revision": world.revision, "at": begun})
    await server.stop()


async def _anybody(_: object) -> Caller:
    """Who is asking is not what is measured."""
    return Caller(namespace="bench", service_account="agent", pod="agent", pod_uid="", node="")


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


@click.command(cls=command.Command)
@click.argument("pods", type=click.IntRange(1))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(pods: int, folder: Path) -> None:
    """Serve a World of PODS; the roots are put into FOLDER."""
    asyncio.run(serve(pods, folder))


if __name__ == "__main__":
    main()
