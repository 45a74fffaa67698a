"""python -m bench.disruption.plane: a control plane for a lab, a process of its own, to be killed and started again.

Our servers for Worlds, certificates and reports, with the lab's directory as source and as CA, and a token that only
says which node its holder is of: what `ambient control` is without an API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from ambient.cli import names
from ambient.identity import signing
from ambient.identity.ca import EmbeddedCA
from ambient.identity.csr import SigningRequest
from ambient.identity.issuer import Issued
from ambient.model.mesh import MeshConfig
from ambient.model.world import World
from ambient.sources import directory
from ambient.xds import credentials
from ambient.xds.ca_server import CertificateService
from ambient.xds.caller import Caller, Metadata, Unauthenticated
from ambient.xds.node_server import NodeService
from ambient.xds.nodes import PodRef, Report
from ambient.xds.server import DiscoveryServer
from ambient.xds.serving import Server
from bench import command

NAME = "ambient-control.ambient-system.svc"
DAY = timedelta(days=1)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


class Plane:
    def __init__(self, source: Path, ca: Path) -> None:
        self.mesh = MeshConfig()
        self.source, self.ca = source, EmbeddedCA.open(ca, self.mesh.trust_domain)
        self.world = World.build(mesh=self.mesh)
        self.discovery = DiscoveryServer(self.authenticate, "lab")
        self.certificates = CertificateService(
            authenticate=self.authenticate, world=lambda: self.world, sign=self.sign, longest=DAY
        )
        self.nodes = NodeService(authenticate=self.authenticate, apply=self.apply)

    async def authenticate(self, metadata: Metadata) -> Caller:
        node = metadata.get("authorization", "").removeprefix("Bearer ")
        if node not in self.world.nodes:
            raise Unauthenticated("token_refused", f"{node!r} is no node")
        return Caller(
            namespace="ambient-system", service_account="ambient-agent", pod=node, pod_uid=f"uid-{node}", node=node
        )

    def sign(self, request: SigningRequest, lifetime: timedelta) -> Issued:
        return signing.by_root(self.ca.load()).workload(request, lifetime, datetime.now(UTC))

    async def apply(self, _node: str, _report: Report) -> Iterable[PodRef]:
        return ()

    async def serve(self, host: str, port: int) -> None:
        """Never returns."""
        authority = self.ca.load()
        own = signing.by_root(authority).server([NAME], DAY, datetime.now(UTC))
        handlers = {**self.discovery.handlers(), **self.certificates.handlers(), **self.nodes.handlers()}
        server = Server(handlers)
        async with contextlib.aclosing(directory.watch(self.source, self.mesh)) as items:
            async for item in items:
                if not isinstance(item, World):
                    continue
                first, self.world = not self.world.revision, item
                self.discovery.publish(item, authority.bundle_pem)
                if first:
                    await server.start(socket.create_server((host, port), backlog=64), credentials.Renewed(lambda: own))


@click.command(cls=command.Command)
@click.argument("source", type=FOLDER)
@click.argument("ca", type=FOLDER)
@click.argument("host", type=names.ADDRESS, metavar="HOST")
@click.argument("port", type=click.IntRange(1, 65535))
def main(source: Path, ca: Path, host: str, port: int) -> None:
    """Serve what SOURCE says and sign with the CA of a directory, at HOST and PORT."""
    asyncio.run(Plane(source, ca).serve(host, port))


if __name__ == "__main__":
    main()
