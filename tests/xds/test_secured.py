"""TLS above a socket, spoken to by asyncio's client: what is said arrives, and every end is an end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest

from ambient.xds import secured
from ambient.xds.secured import Secured

from .replica import NAME, client_tls, server_tls

LONG = bytes(range(256)) * (8 << 10)  # more than fits anywhere on the way


class Echo(asyncio.Protocol):
    """Says what it hears; closes on "bye", aborts on "cut". Who does not read is not listened to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.paused, self.gone = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        if data == b"bye":
            self.transport.close()
        elif data == b"cut":
            self.transport.abort()

    def pause_writing(self) -> None:
        self.paused.set()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        self.told.append("lost")
        self.gone.set()


@contextlib.asynccontextmanager
async def serving(above: Echo, handshake_s: float = 10.0) -> AsyncIterator[int]:
    room = memoryview(bytearray(secured.READ_BYTES))
    context = server_tls()

    def accepted() -> Secured:
        return Secured(context, above, room, handshake_s=handshake_s)

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)  # the kernel takes little ahead of the client
    async with await asyncio.get_running_loop().create_server(accepted, sock=listener):
        yield listener.getsockname()[1]


def spoken_to(
    test: Callable[[asyncio.StreamReader, asyncio.StreamWriter, Echo], Awaitable[None]],
) -> None:
    async def run() -> None:
        above = Echo()
        async with asyncio.timeout(10), serving(above) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls(), server_hostname=NAME)
            try:
                await test(reader, writer, above)
            finally:
                writer.transport.abort()

    asyncio.run(run())


def test_what_is_said_comes_back_however_long_it_is() -> None:
    async def test(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, above: Echo) -> None:
        writer.write(LONG)
        await above.paused.wait()  # nobody reads here
        assert await reader.readexactly(len(LONG)) == LONG
        writer.write(b"more")
        assert await reader.readexactly(4) == b"more"

    spoken_to(test)


def test_nothing_waits_for_the_peer_to_acknowledge_what_was_said_before() -> None:
    async def test(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, above: Echo) -> None:
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        assert above.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    spoken_to(test)


def test_the_last_word_arrives_before_the_end() -> None:
    async def test(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, above: Echo) -> None:
        writer.write(b"bye")
        assert await reader.read() == b"bye"
        assert above.transport.is_closing()
        above.transport.write(b"nobody hears that")
        writer.close()
        await above.gone.wait()
        assert above.told == ["made", "lost"]

    spoken_to(test)


def test_a_peer_that_stays_after_the_last_word_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secured, "LINGER_S", 0.1)

    async def test(_: asyncio.StreamReader, writer: asyncio.StreamWriter, above: Echo) -> None:
        writer.write(LONG)
        await above.paused.wait()
        above.transport.close()
        await above.gone.wait()  # though it took nothing

    spoken_to(test)


def test_a_peer_that_has_said_its_last_is_answered_in_kind() -> None:
    async def test(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, above: Echo) -> None:
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        writer.close()
        await above.gone.wait()
        assert above.told == ["made", "lost"]

    spoken_to(test)


def test_an_abort_says_nothing_more() -> None:
    async def test(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, above: Echo) -> None:
        writer.write(b"cut")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        await above.gone.wait()
        assert above.told == ["made", "lost"]

    spoken_to(test)


def test_what_is_no_tls_is_told_so_and_never_becomes_a_connection() -> None:
    async def test() -> None:
        above = Echo()
        async with asyncio.timeout(10), serving(above) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await reader.read())[:1] in (b"\x15", b"")  # an alert, if OpenSSL has one for it
            writer.close()
        assert above.told == []

    asyncio.run(test())


def test_who_does_not_shake_hands_in_time_is_cut_off() -> None:
    async def test() -> None:
        above = Echo()
        async with asyncio.timeout(10), serving(above, handshake_s=0.05) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        assert above.told == []

    asyncio.run(test())


def test_bytes_that_were_meddled_with_end_the_connection() -> None:
    async def test(_: asyncio.StreamReader, writer: asyncio.StreamWriter, above: Echo) -> None:
        beneath = writer.transport.get_extra_info("socket")
        os.write(beneath.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)  # a record that nobody has encrypted
        await above.gone.wait()
        assert above.told == ["made", "lost"]

    spoken_to(test)
