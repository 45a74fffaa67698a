"""python -m bench.control.ca_server PODS NODES: a certificate service in a process of its own, with a made-up World.

All of it is real but the API server, which vouches for every token at once. Prints one JSON line: its port and the file
of its roots. Ends with its input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import click

from ambient.control.api import Json, Kind
from ambient.control.ca import ControlCA
from ambient.control.callers import Callers
from ambient.identity import roots
from ambient.identity.roots import Authority
from ambient.model.mesh import Node, Workload
from ambient.model.world import World
from ambient.xds import credentials
from ambient.xds.ca_server import CertificateService
from ambient.xds.serving import Server
from bench import command
from bench.control.crowd import ACCOUNT, NAMES, account_of, node_of, pod_of


class Vouching:
    """An API server that knows whose token it is by its last claim."""

    async def create(self, kind: Kind, obj: Json) -> Json:  # noqa: ARG002 - callers.Reviewer's signature
        pod = pod_of(obj["spec"]["token"])
        extra = {"pod-name": [pod], "pod-uid": [f"uid-{pod}"], "node-name": [node_of(pod)]}
        user = {
            "username": f"system:serviceaccount:{ACCOUNT.replace('/', ':')}",
            "extra": {f"authentication.kubernetes.io/{key}": value for key, value in extra.items()},
        }
        return {"status": {"authenticated": True, "audiences": obj["spec"]["audiences"], "user": user}}


def a_world(pods: int, nodes: int) -> World:
    """Every pod has a service account of its own: one certificate each."""
    return World.build(
        nodes=[Node(name=f"node-{number}") for number in range(nodes)],
        workloads=[
            Workload(
                namespace="shop",
                name=f"pod-{number}",
                uid=f"uid-{number}",
                node=f"node-{number % nodes}",
                service_account=account_of(number),
                enrolled=True,
            )
            for number in range(pods)
        ],
    )


async def _only(authority: Authority) -> AsyncGenerator[Authority, None]:
    yield authority
    await asyncio.Event().wait()


async def serve(pods: int, nodes: int, folder: Path) -> None:
    world = a_world(pods, nodes)
    gc.freeze()
    authority = roots.found("cluster.local", datetime.now(UTC))
    (folder / "roots.pem").write_bytes(authority.bundle_pem)
    ca = ControlCA(_only(authority), NAMES)
    following = asyncio.create_task(ca.run(), name="CA")
    await ca.ready()
    callers = Callers(Vouching(), accounts=[ACCOUNT], world=lambda: world)
    service = CertificateService(authenticate=callers.authenticate, world=lambda: world, sign=ca.sign)
    server = Server(service.handlers())
    listener = socket.create_server(("127.0.0.1", 0))
    await server.start(listener, credentials.Renewed(ca.serving))
    print(json.dumps({"port": listener.getsockname()[1], "roots": str(folder / "roots.pem")}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


@click.command(cls=command.Command)
@click.argument("pods", type=click.IntRange(1))
@click.argument("nodes", type=click.IntRange(1))
def main(pods: int, nodes: int) -> None:
    """Sign for the agents of NODES, which have PODS."""
    with tempfile.TemporaryDirectory(prefix="ambient-bench-") as made:
        asyncio.run(serve(pods, nodes, Path(made)))


if __name__ == "__main__":
    main()
