"""The server's connections, spoken to by clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes

from ambient.xds import serving
from ambient.xds.call import RpcFailed, Status

from .echoes import BIG, connected, patient, served
from .replica import NAME, client_tls, eventually


class Raw:
    """A client that says what it wants, and takes only what it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http.initiate_connection()
        self._events: list[Any] = []

    async def say(self) -> None:
        self.writer.write(self.http.data_to_send())
        await self.writer.drain()

    def begin(self, path: str, **more: str) -> int:
        number: int = self.http.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "https", ":path": path, ":authority": NAME, "te": "trailers"}
        headers |= {"content-type": "application/grpc"} | {key.replace("_", "-"): value for key, value in more.items()}
        self.http.send_headers(number, list(headers.items()))
        return number

    async def hear(self, kind: type) -> Any:
        """The next event of this kind; None when the connection ends before."""
        while True:
            while self._events:
                if isinstance(event := self._events.pop(0), kind):
                    return event
            if not (data := await self._reader.read(65536)):
                return None
            self._events += self.http.receive_data(data)
            await self.say()


@contextlib.asynccontextmanager
async def raw(port: int) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls(), server_hostname=NAME)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def misbehaved(test: Callable[[Raw], Awaitable[None]]) -> None:
    async def run(_: serving.Server, port: int) -> None:
        async with asyncio.timeout(30), raw(port) as found:
            await test(found)
        async with connected(port) as found:  # nobody else notices
            assert await found.unary("/test.Test/Echo", b"still", {}, timeout_s=2) == b"still"

    served(run)


def test_of_a_call_whose_messages_nobody_takes_no_more_comes_than_a_window_holds() -> None:
    """The handler waits, as it does for who is asking."""

    async def test(found: Raw) -> None:
        await found.say()
        await found.hear(h2.events.RemoteSettingsChanged)
        number, sent = found.begin("/test.Test/Patient"), 0
        found.http.send_data(number, b"\0" + BIG.to_bytes(4, "big"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    while room := min(found.http.local_flow_control_window(number), 16_384):
                        found.http.send_data(number, b"x" * room)
                        sent += room
                    await found.say()
                    await found.hear(h2.events.WindowUpdated)
        assert 0 < sent <= serving.CONNECTION_WINDOW

    misbehaved(test)


def test_what_is_no_grpc_is_told_so() -> None:
    async def test(found: Raw) -> None:
        found.begin("/test.Test/Echo", content_type="text/html")
        await found.say()
        answer = await found.hear(h2.events.ResponseReceived)
        assert dict(answer.headers)[":status"] == "415"

    misbehaved(test)


@pytest.mark.parametrize("prefix", [b"\1\0\0\0\1x", b"\0\xff\xff\xff\xff"], ids=["compressed", "longer than allowed"])
def test_a_message_that_nobody_takes_ends_its_call_only(prefix: bytes) -> None:
    async def test(found: Raw) -> None:
        found.http.send_data(found.begin("/test.Test/EchoAll"), prefix)
        await found.say()
        answer = await found.hear(h2.events.TrailersReceived)
        assert dict(answer.headers)["grpc-status"] == str(Status.RESOURCE_EXHAUSTED.value)

    misbehaved(test)


def test_a_client_that_reads_nothing_is_sent_what_it_allowed_and_no_more() -> None:
    async def test(found: Raw) -> None:
        found.begin("/test.Test/Flood")
        await found.say()
        taken = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while event := await found.hear(h2.events.DataReceived):  # credits nothing
                    taken += len(event.data)
        assert 0 < taken <= 65_535

    misbehaved(test)


def test_a_call_that_is_given_up_with_the_room_for_its_answer_is_its_clients_only_loss() -> None:
    async def test(found: Raw) -> None:
        number = found.begin("/test.Test/Flood")
        await found.say()
        await found.hear(h2.events.DataReceived)
        found.http.increment_flow_control_window(1 << 20, number)
        found.http.increment_flow_control_window(1 << 20)
        found.http.reset_stream(number, ErrorCodes.CANCEL)
        await found.say()
        found.http.send_data(found.begin("/test.Test/Echo"), b"\0\0\0\0\1x", end_stream=True)
        await found.say()
        assert await found.hear(h2.events.TrailersReceived)

    misbehaved(test)


def test_who_is_not_let_in_is_told_so_before_its_message_is_there() -> None:
    async def test(found: Raw) -> None:
        found.http.send_data(found.begin("/test.Test/Echo", refuse="no"), b"\0\0\0\xff\xff" + b"x" * 100)
        await found.say()
        answer = await found.hear(h2.events.TrailersReceived)
        assert dict(answer.headers)["grpc-status"] == str(Status.PERMISSION_DENIED.value)

    misbehaved(test)


def test_who_is_not_let_in_yet_is_given_room_for_little() -> None:
    async def test(found: Raw) -> None:
        await found.say()
        await found.hear(h2.events.RemoteSettingsChanged)
        calls = [found.begin("/test.Test/Hesitate") for _ in range(8)]
        for number in calls:
            found.http.send_data(number, (2 << 20).to_bytes(5, "big"))  # so long a message is to follow
        said = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    for number in calls:
                        while room := min(found.http.local_flow_control_window(number), 16_384):
                            found.http.send_data(number, b"x" * room)
                            said += room
                    await found.say()
                    await found.hear(h2.events.WindowUpdated)
        assert said <= 65_535

    misbehaved(test)


def test_a_client_that_reads_nothing_is_not_listened_to_either() -> None:
    async def run(server: serving.Server, port: int) -> None:
        async with raw(port) as deaf:
            await deaf.say()
            await eventually(lambda: len(server.connections) == 1)
            (connection,) = server.connections
            connection.pause_writing()  # as the transport does when what it has to send is not taken
            deaf.begin("/test.Test/Patient")
            await deaf.say()
            await asyncio.sleep(0.1)
            assert patient.running == 0
            connection.resume_writing()
            await eventually(lambda: patient.running == 1)
        await eventually(lambda: patient.running == 0)

    served(run)


def test_who_calls_for_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "IDLE_S", 0.1)

    async def run(server: serving.Server, port: int) -> None:
        async with connected(port) as idle, connected(port) as busy:
            call = busy.call("/test.Test/EchoAll", {})
            await eventually(lambda: len(server.connections) == 2)
            await eventually(lambda: len(server.connections) == 1)
            with pytest.raises(RpcFailed):
                await idle.unary("/test.Test/Echo", b"", {}, timeout_s=2)
            await asyncio.sleep(0.3)
            await call.send(b"still here")
            assert await call.receive() == b"still here"

    served(run)


def test_who_breaks_http_is_hung_up_on() -> None:
    async def test(found: Raw) -> None:
        await found.say()
        found.writer.write(b"\0\0\4\3\0\0\0\0\0" + b"\0\0\0\0")  # a reset of stream 0
        await found.writer.drain()
        assert await found.hear(h2.events.ConnectionTerminated)

    misbehaved(test)


def test_who_gives_up_call_after_call_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "RESETS", 20)

    async def test(found: Raw) -> None:
        for _ in range(serving.RESETS + 1):
            found.http.reset_stream(found.begin("/test.Test/Patient"), ErrorCodes.CANCEL)
            await found.say()
        event = await found.hear(h2.events.ConnectionTerminated)
        assert event.error_code == ErrorCodes.ENHANCE_YOUR_CALM

    misbehaved(test)


def test_a_client_is_asked_whether_it_is_there_and_hung_up_on_if_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "IDLE_S", 0.05)
    monkeypatch.setattr(serving, "ANSWER_S", 0.05)

    async def run(server: serving.Server, port: int) -> None:
        async with connected(port) as here, raw(port) as away:
            here.call("/test.Test/Patient", {})
            await away.say()
            await eventually(lambda: len(server.connections) == 1)  # which never answered
            await asyncio.sleep(0.3)
            assert await here.unary("/test.Test/Echo", b"here", {}, timeout_s=2) == b"here"

    served(run)


def test_who_does_not_speak_http2_is_hung_up_on() -> None:
    async def run(server: serving.Server, port: int) -> None:
        context = client_tls()
        context.set_alpn_protocols(["http/1.1"])
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
            assert await reader.read() == b""
            writer.close()
        await eventually(lambda: not server.connections)

    served(run)


def test_plain_text_reaches_nobody() -> None:
    async def run(server: serving.Server, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert b"HTTP" not in await reader.read()
        writer.close()
        assert not server.connections

    served(run)


def test_a_message_is_one_however_it_is_cut_and_padded() -> None:
    async def test(found: Raw) -> None:
        number = found.begin("/test.Test/EchoAsItComes")
        message = b"\0" + (100).to_bytes(4, "big") + b"x" * 100
        whole = found.http.data_to_send()
        found.http.send_data(number, message[:3])
        found.http.send_data(number, message[3:] + message[:50], pad_length=20)
        found.http.send_data(number, message[50:])
        found.http.send_data(number, message, pad_length=0)
        found.http.send_data(number, message)
        found.http.send_data(number, message, end_stream=True)
        for byte in whole + found.http.data_to_send():
            found.writer.write(bytes([byte]))
        heard = b""
        while len(heard) < 5 * len(message):
            heard += (await found.hear(h2.events.DataReceived)).data
        assert heard == 5 * message
        assert await found.hear(h2.events.TrailersReceived)

    misbehaved(test)


def test_a_frame_that_is_too_long_ends_the_connection_before_it_is_whole() -> None:
    async def test(found: Raw) -> None:
        found.begin("/test.Test/EchoAsItComes")
        await found.say()
        found.writer.write(b"\xff\xff\xff\0\0\0\0\0\1")
        assert (await found.hear(h2.events.ConnectionTerminated)).error_code == ErrorCodes.FRAME_SIZE_ERROR

    misbehaved(test)
