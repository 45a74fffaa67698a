"""A gRPC server of our own with handlers of every kind, for the tests of its connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from ambient.xds import channel, serving
from ambient.xds.call import Status
from ambient.xds.channel import Channel, Keepalive
from ambient.xds.served import Aborted, ServerCall

from .replica import NAME, client_tls, listening

BIG = 5 << 20  # more than any window


async def admit(call: ServerCall) -> str:
    if why := call.metadata.get("refuse"):
        raise Aborted(Status.PERMISSION_DENIED, why)
    return call.metadata.get("name", "")


async def echo(request: bytes, name: str) -> bytes:
    return name.encode() + request


async def hesitate(_: ServerCall) -> str:
    await asyncio.Event().wait()
    return ""


async def echo_all(call: ServerCall) -> None:
    while (message := await call.receive()) is not None:
        call.send(message)


async def echo_as_it_comes(call: ServerCall) -> None:
    def take(message: bytes | None) -> None:
        if message is None:
            call.finish()
        else:
            call.send(message)

    call.deliver(take)
    await call.over.wait()


async def flood(call: ServerCall) -> None:
    call.send(b"y" * BIG)


async def broken(call: ServerCall) -> None:
    raise ZeroDivisionError(call.path)


class Patient:
    """A handler that only ends when it is cancelled."""

    def __init__(self) -> None:
        self.running = self.cancelled = 0

    async def __call__(self, _: ServerCall) -> None:
        self.running += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


patient = Patient()
HANDLERS = {
    "/test.Test/Echo": serving.unary(admit, echo),
    "/test.Test/Hesitate": serving.unary(hesitate, echo),
    "/test.Test/EchoAll": echo_all,
    "/test.Test/EchoAsItComes": echo_as_it_comes,
    "/test.Test/Flood": flood,
    "/test.Test/Broken": broken,
    "/test.Test/Patient": patient,
}


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Channel]:
    keepalive = Keepalive(idle_s=5, answer_s=5)
    async with channel.connect("127.0.0.1", port, client_tls(), NAME, timeout_s=2, keepalive=keepalive) as found:
        yield found


def served(test: Callable[[serving.Server, int], Awaitable[None]]) -> None:
    async def run() -> None:
        async with listening(HANDLERS) as (server, port):
            await test(server, port)

    asyncio.run(run())


def spoken_to(test: Callable[[Channel], Awaitable[None]]) -> None:
    async def run(_: serving.Server, port: int) -> None:
        async with connected(port) as found:
            await test(found)

    served(run)
