"""A control plane's replica on loopback, over real TLS, and clients that know it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import grpc
import grpc.aio
import trustme

from ambient.identity import signing
from ambient.model import mesh
from ambient.model.errors import SourceError
from ambient.model.world import World
from ambient.xds import credentials
from ambient.xds.caller import Caller, Metadata, Unauthenticated
from ambient.xds.channel import Keepalive
from ambient.xds.client import Client, NodeName, Patience
from ambient.xds.dial import ControlPlane
from ambient.xds.server import DiscoveryServer
from ambient.xds.serving import Handlers, Server
from ambient.xds.trust import Trust

NAME = "ambient-control.ambient-system.svc"
TOKEN = "the agent's token"
HANGS_S = 30.0  # milliseconds on a machine of one's own: how busy this one is decides nothing
PATIENT = Patience(first_s=0.001, longest_s=0.02, quiet_s=60)  # tells of no outage that a test can bring about


@cache
def authority() -> tuple[trustme.CA, trustme.LeafCert]:
    """Made once: keys cost time."""
    ca = trustme.CA()
    return ca, ca.issue_cert(NAME)


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority()[1].configure_cert(context)
    context.set_alpn_protocols(["h2"])
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority()[0].configure_trust(context)
    context.set_alpn_protocols(["h2"])
    return context


def served() -> signing.ServerCertificate:
    leaf = authority()[1]
    chain = b"".join(each.bytes() for each in leaf.cert_chain_pems)
    return signing.ServerCertificate(leaf.private_key_pem.bytes(), chain, datetime.max.replace(tzinfo=UTC))


@contextlib.asynccontextmanager
async def listening(handlers: Handlers, *, port: int = 0) -> AsyncIterator[tuple[Server, int]]:
    own = served()
    server = Server(handlers)
    listener = socket.create_server(("127.0.0.1", port))
    bound = listener.getsockname()[1]
    await server.start(listener, credentials.Renewed(lambda: own))
    try:
        yield server, bound
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def grpcio(*handlers: grpc.GenericRpcHandler) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    """The server of another implementation, and its port."""
    own = served()
    server = grpc.aio.server(handlers=handlers)
    bound = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(own.key_pem, own.chain_pem)]))
    await server.start()
    try:
        yield server, bound
    finally:
        await server.stop(0)


async def by_token(metadata: Metadata) -> Caller:
    if dict(metadata).get("authorization") != f"Bearer {TOKEN}":
        raise Unauthenticated("no_token", "no token that is known here")
    return Caller(namespace="ambient-system", service_account="ambient-agent", pod="agent", pod_uid="u", node="n1")


class Replica:
    """One DiscoveryServer that can be killed and started again."""

    def __init__(self, world: World | None = None, name: str = "r1") -> None:
        self.discovery = DiscoveryServer(by_token, name)
        self.port = 0
        self._stack = contextlib.AsyncExitStack()
        if world is not None:
            self.discovery.publish(world)

    async def start(self) -> Replica:
        self.server, self.port = await self._stack.enter_async_context(
            listening(self.discovery.handlers(), port=self.port)
        )
        return self

    async def kill(self) -> None:
        await self._stack.aclose()

    async def __aenter__(self) -> Replica:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.kill()


class Agent:
    """A client whose items can be waited for."""

    def __init__(self, folder: Path, *ports: int, token: str = TOKEN, patience: Patience | None = None) -> None:
        self.roots, self.token = folder / "roots.pem", folder / "token"
        authority()[0].cert_pem.write_to_path(str(self.roots))
        self.token.write_text(token + "\n")
        self.trust = Trust(self.roots)
        self.client = Client(
            self._control(*(f"127.0.0.1:{port}" for port in ports)),
            NodeName(node="n1"),
            mesh.MeshConfig(),
            patience=patience or Patience(first_s=0.001, longest_s=0.02, quiet_s=0.2),
        )
        self.items: list[World | SourceError] = []
        self._news = asyncio.Condition()

    def _control(self, *targets: str) -> ControlPlane:
        return ControlPlane(
            targets=targets,
            server_name=NAME,
            trust=self.trust,
            token=self.token,
            connect_s=HANGS_S,
            keepalive=Keepalive(idle_s=HANGS_S, answer_s=HANGS_S),
        )

    def go_to(self, *targets: str) -> None:
        """From the next connection on."""
        self.client._control = self._control(*targets)

    @property
    def worlds(self) -> list[World]:
        return [item for item in self.items if isinstance(item, World)]

    @property
    def errors(self) -> list[str]:
        return [str(item) for item in self.items if isinstance(item, SourceError)]

    async def __aenter__(self) -> Agent:
        self._task = asyncio.create_task(self._run(), name="test: agent")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), outcome

    async def _run(self) -> None:
        async with contextlib.aclosing(self.client.watch()) as items:
            async for item in items:
                async with self._news:
                    self.items.append(item)
                    self._news.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Until something holds that an item can make true."""
        async with asyncio.timeout(HANGS_S), self._news:
            await self._news.wait_for(holds)

    async def until_world(self, world: World) -> None:
        await self.until(lambda: bool(self.worlds) and self.worlds[-1] == world)


async def eventually(holds: Callable[[], bool]) -> None:
    """For what tells nobody that it happened."""
    async with asyncio.timeout(HANGS_S):
        while not holds():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.005)
