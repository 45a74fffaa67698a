"""What clients can make the server keep is bounded: of each connection, and of all together."""

from __future__ import annotations

import asyncio

import pytest

from ambient.xds import serving
from ambient.xds.call import Call, RpcFailed, Status
from ambient.xds.channel import Channel

from .echoes import BIG, connected, served, spoken_to
from .replica import eventually

LONG = b"x" * 300_000


async def half(found: Channel) -> Call:
    """A long message of which only the first half comes, whatever is allowed."""
    call = found.call("/test.Test/EchoAll", {})
    message = b"\0" + len(LONG).to_bytes(4, "big") + LONG
    await call._carrier.send(call, message[: len(message) // 2], last=False)
    return call


def kept(server: serving.Server) -> int:
    return sum(call.partial for connection in server.connections for call in connection._calls.values())


def test_a_client_has_room_for_one_long_message_of_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REQUEST_BYTES", len(LONG) + 1000)

    async def test(server: serving.Server, port: int) -> None:
        async with connected(port) as found:
            await half(found)
            await eventually(lambda: server.room.left < serving.LONG_BYTES)
            with pytest.raises(RpcFailed, match="too long to be kept beside") as failed:
                await found.unary("/test.Test/Echo", LONG, {}, timeout_s=2)
            assert failed.value.status == Status.RESOURCE_EXHAUSTED
            assert await found.unary("/test.Test/Echo", b"short", {}, timeout_s=2) == b"short"
            async with connected(port) as other:
                assert await other.unary("/test.Test/Echo", LONG, {}, timeout_s=2) == LONG
        await eventually(lambda: server.room.left == serving.LONG_BYTES)

    served(test)


def test_a_long_message_waits_while_there_is_no_room_and_comes_when_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LONG_BYTES", len(LONG) + 1000)

    async def test(server: serving.Server, port: int) -> None:
        async with connected(port) as found, connected(port) as other:
            call = await half(found)
            await eventually(lambda: server.room.left < 2000)
            waiting = asyncio.create_task(other.unary("/test.Test/Echo", LONG, {}, timeout_s=5))
            await eventually(lambda: kept(server) == len(LONG) // 2 + 2 + serving.CONNECTION_WINDOW)
            assert not waiting.done()
            call.cancel()
            assert await waiting == LONG
        await eventually(lambda: server.room.left == serving.LONG_BYTES)

    served(test)


def test_who_takes_room_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LONG_BYTES", len(LONG) + 1000)
    monkeypatch.setattr(serving, "PACE_S", 0.1)

    async def test(_: serving.Server, port: int) -> None:
        async with connected(port) as found, connected(port) as other:
            call = await half(found)
            assert await other.unary("/test.Test/Echo", LONG, {}, timeout_s=2) == LONG
            with pytest.raises(RpcFailed, match="came too slowly"):
                await call.receive()

    served(test)


def test_many_long_messages_at_once_all_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LONG_BYTES", 3 * len(LONG))

    async def test(found: Channel) -> None:
        await found.unary("/test.Test/Echo", b"", {}, timeout_s=2)
        several = (found.unary("/test.Test/Echo", LONG, {}, timeout_s=5) for _ in range(20))
        assert await asyncio.gather(*several) == [LONG] * 20

    spoken_to(test)


def test_where_all_windows_are_given_messages_of_any_length_come_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "WINDOWS", serving.CONNECTION_WINDOW)

    async def test(server: serving.Server, port: int) -> None:
        async with connected(port) as found:
            assert await found.unary("/test.Test/Echo", b"1", {}, timeout_s=2) == b"1"
            assert server.windows.left == 0
            async with connected(port) as other:
                assert await other.unary("/test.Test/Echo", b"x" * BIG, {}, timeout_s=5) == b"x" * BIG
        await eventually(lambda: server.windows.left == serving.CONNECTION_WINDOW)

    served(test)


def test_a_message_that_nobody_took_gives_its_room_back_with_its_call() -> None:
    async def test(server: serving.Server, port: int) -> None:
        async with connected(port) as found:
            call = found.call("/test.Test/EchoAll", {})
            await call.send(LONG)
            assert await call.receive() == LONG
            assert server.room.left == serving.LONG_BYTES
            await half(found)
            await eventually(lambda: server.room.left == serving.LONG_BYTES - len(LONG) - 5)
        await eventually(lambda: server.room.left == serving.LONG_BYTES)

    served(test)
