"""A control plane in miniature: our servers over TLS, callers known by their tokens, a World of the test's choosing."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio

from ambient.identity import profile, roots, signing
from ambient.identity.csr import SigningRequest
from ambient.identity.issuer import Issued, IssuingFailed
from ambient.model.mesh import Namespace, Node, Workload
from ambient.model.world import World
from ambient.xds import credentials
from ambient.xds.ca_client import ControlIssuer
from ambient.xds.ca_server import CertificateService
from ambient.xds.caller import Caller, CannotAuthenticate, Metadata, Unauthenticated
from ambient.xds.dial import ControlPlane
from ambient.xds.node_server import NodeService, ReportNotApplied
from ambient.xds.nodes import PodRef, Report
from ambient.xds.serving import Server
from ambient.xds.short import ShortCalls
from ambient.xds.trust import Trust

SERVER_NAME = "ambient-control.ambient-system.svc"
DAY = timedelta(days=1)


def a_caller(node: str = "node-1") -> Caller:
    return Caller(
        namespace="ambient-system",
        service_account="ambient-agent",
        pod=f"agent-of-{node}",
        pod_uid=f"uid-of-{node}",
        node=node,
    )


def a_pod(name: str, node: str, **fields: object) -> Workload:
    given = {"namespace": "shop", "service_account": name, "ready": True, "enrolled": True} | fields
    return Workload(name=name, uid=f"uid-{name}", node=node, **given)  # type: ignore[arg-type]


def a_world(*more: Workload) -> World:
    """web on node-1, db on node-2."""
    return World.build(
        nodes=[Node(name="node-1"), Node(name="node-2")],
        namespaces=[Namespace(name="shop", enrolled=True)],
        workloads=[a_pod("web", "node-1"), a_pod("db", "node-2"), *more],
    )


class Plane:
    def __init__(self) -> None:
        self.authority = roots.found("cluster.local", datetime.now(UTC))
        self.world = a_world()
        self.callers = {"token-1": a_caller("node-1"), "token-2": a_caller("node-2")}
        self.skew = timedelta(0)  # of its clock to ours
        self.broken = ""  # why it signs and applies nothing; empty: it does
        self.undecided = False  # it cannot tell who calls
        self.seen: list[tuple[str, Report]] = []
        self.unknown: list[PodRef] = []
        self.lifetimes: list[timedelta] = []
        self.certificates = CertificateService(
            authenticate=self.authenticate, world=lambda: self.world, sign=self._sign, longest=DAY
        )
        self.nodes = NodeService(authenticate=self.authenticate, apply=self._apply)
        self.port = 0
        self._server: Server | None = None

    async def start(self) -> None:
        """On the same port as before, if there was one."""
        own = signing.by_root(self.authority).server([SERVER_NAME], DAY, datetime.now(UTC))
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._server = Server({**self.certificates.handlers(), **self.nodes.handlers()})
        await self._server.start(listener, credentials.Renewed(lambda: own))

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    def channel(self) -> grpc.aio.Channel:
        """As other implementations have one; the caller closes it."""
        trust = grpc.ssl_channel_credentials(self.authority.bundle_pem)
        options = (("grpc.ssl_target_name_override", SERVER_NAME),)
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", trust, options)

    async def authenticate(self, metadata: Metadata) -> Caller:
        if self.undecided:
            raise CannotAuthenticate("nobody to ask")
        if known := self.callers.get(metadata.get("authorization", "").removeprefix("Bearer ")):
            return known
        raise Unauthenticated("token_refused", "the token is nobody's")

    def _sign(self, request: SigningRequest, lifetime: timedelta) -> Issued:
        if self.broken:
            raise IssuingFailed(self.broken)
        self.lifetimes.append(lifetime)
        return signing.by_root(self.authority).workload(request, lifetime, datetime.now(UTC) + self.skew)

    async def _apply(self, node: str, report: Report) -> Iterable[PodRef]:
        self.seen.append((node, report))
        if self.broken:
            raise ReportNotApplied(self.broken)
        return self.unknown


class Agent:
    """What an agent has of a control plane: two files, and what is made of them."""

    def __init__(self, folder: Path, plane: Plane, *, node: str = "node-1") -> None:
        self.token_file, self.roots_file = folder / "token", folder / "roots.pem"
        self.token_file.write_text(f"token-{node[-1]}\n")
        self.roots_file.write_bytes(plane.authority.bundle_pem)
        self.trust = Trust(self.roots_file)
        self.rng = random.Random(7)
        self.call = ShortCalls(self.control(plane), self.rng)
        self.issuer = ControlIssuer(self.call, self.trust)

    def control(self, *planes: Plane, server_name: str = SERVER_NAME) -> ControlPlane:
        return ControlPlane(
            targets=tuple(f"127.0.0.1:{plane.port}" for plane in planes),
            server_name=server_name,
            trust=self.trust,
            token=self.token_file,
        )


@contextlib.asynccontextmanager
async def running(plane: Plane | None = None) -> AsyncIterator[Plane]:
    plane = plane or Plane()
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()


@contextlib.asynccontextmanager
async def with_agent(folder: Path, *, node: str = "node-1") -> AsyncIterator[tuple[Plane, Agent]]:
    async with running() as plane:
        yield plane, Agent(folder, plane, node=node)


def another_authority() -> roots.Authority:
    return roots.found("cluster.local", datetime.now(UTC))


MIN = profile.MIN_LIFETIME
