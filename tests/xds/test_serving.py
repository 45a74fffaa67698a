"""The server's connections, spoken to by our client, by grpcio's, and by clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes

from ambient.xds import channel, serving
from ambient.xds.call import RpcFailed, Status
from ambient.xds.channel import Channel, Keepalive
from ambient.xds.served import Aborted, ServerCall

from .replica import NAME, authority, client_tls, eventually, listening

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


def test_one_message_there_and_one_back() -> None:
    async def test(found: Channel) -> None:
        for number in range(3):
            assert await found.unary("/test.Test/Echo", b"%d" % number, {}, timeout_s=2) == b"%d" % number

    spoken_to(test)


@pytest.mark.parametrize(
    ("path", "metadata", "status", "why"),
    [
        ("/test.Test/Echo", {"refuse": "no: 100 %, line"}, Status.PERMISSION_DENIED, "no: 100 %, line"),
        ("/test.Test/Nothing", {}, Status.UNIMPLEMENTED, "there is no /test.Test/Nothing"),
        ("/test.Test/Broken", {}, Status.INTERNAL, "made a mistake"),
    ],
)
def test_a_call_that_ends_badly_says_how_and_why(path: str, metadata: Any, status: Status, why: str) -> None:
    async def test(found: Channel) -> None:
        with pytest.raises(RpcFailed, match=re.escape(why)) as failed:
            await found.unary(path, b"", metadata, timeout_s=2)
        assert failed.value.status == status
        assert await found.unary("/test.Test/Echo", b"again", {}, timeout_s=2) == b"again"

    spoken_to(test)


def test_a_call_that_is_refused_before_its_message_leaves_the_others_alone() -> None:
    async def test(found: Channel) -> None:
        for _ in range(20):
            with pytest.raises(RpcFailed, match="not you") as failed:
                await found.call("/test.Test/Echo", {"refuse": "not you"}).receive()
            assert failed.value.status == Status.PERMISSION_DENIED
        assert await found.unary("/test.Test/Echo", b"1", {}, timeout_s=2) == b"1"

    spoken_to(test)


def test_what_refused_calls_said_takes_no_room_from_later_ones() -> None:
    async def test(found: Channel) -> None:
        assert await found.unary("/test.Test/Echo", b"1", {}, timeout_s=2) == b"1"
        for _ in range(2 * serving.CONNECTION_WINDOW // 500_000):
            with pytest.raises(RpcFailed, match="not you"):
                await found.unary("/test.Test/Echo", b"x" * 500_000, {"refuse": "not you"}, timeout_s=2)
        assert await found.unary("/test.Test/Echo", b"1", {}, timeout_s=2) == b"1"

    spoken_to(test)


def test_an_answer_is_told_whom_it_is_for() -> None:
    async def test(found: Channel) -> None:
        assert await found.unary("/test.Test/Echo", b"1", {"name": "x"}, timeout_s=2) == b"x1"

    spoken_to(test)


def test_a_call_of_one_message_takes_no_second_one() -> None:
    async def test(found: Channel) -> None:
        call = found.call("/test.Test/Echo", {})
        await call.send(b"one")
        await call.send(b"two")
        with pytest.raises(RpcFailed, match="takes one message"):
            await call.receive()

    spoken_to(test)


@pytest.mark.parametrize("path", ["/test.Test/EchoAll", "/test.Test/EchoAsItComes"])
@pytest.mark.parametrize("size", [0, 1, 16_384, BIG])
def test_messages_of_any_size_go_both_ways_in_order(path: str, size: int) -> None:
    async def test(found: Channel) -> None:
        call = found.call(path, {})
        said = [b"a" * size, b"between", b"b" * size]
        sending = asyncio.gather(*(call.send(each) for each in said[:1]))
        assert await call.receive() == said[0]
        await sending
        await call.send(said[1])
        await call.send(said[2], last=True)
        assert [await call.receive(), await call.receive(), await call.receive()] == [*said[1:], None]

    spoken_to(test)


def test_grpcios_client_gets_along_with_it() -> None:
    async def test(_: serving.Server, port: int) -> None:
        trust = grpc.ssl_channel_credentials(authority()[0].cert_pem.bytes())
        options = (("grpc.ssl_target_name_override", NAME), ("grpc.max_receive_message_length", -1))
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trust, options) as found:
            one: Any = found.unary_unary("/test.Test/Echo")
            assert await one(b"x" * 100_000, timeout=2) == b"x" * 100_000
            with pytest.raises(grpc.aio.AioRpcError, match="not you") as refused:
                await one(b"", timeout=2, metadata=(("refuse", "not you"),))
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            many: Any = found.stream_stream("/test.Test/EchoAsItComes")
            assert [each async for each in many(iter([b"1", b"2", b"3"]), timeout=2)] == [b"1", b"2", b"3"]
            much: Any = found.stream_stream("/test.Test/Flood")
            assert [len(each) async for each in much(iter([]), timeout=5)] == [BIG]

    served(test)


def test_a_client_that_leaves_takes_its_handlers_along() -> None:
    async def test(server: serving.Server, port: int) -> None:
        before = patient.cancelled
        async with connected(port) as found:
            one = found.call("/test.Test/Patient", {})
            found.call("/test.Test/Patient", {})
            await eventually(lambda: patient.running == 2)
            one.cancel()
            await eventually(lambda: patient.cancelled == before + 1)
        await eventually(lambda: patient.cancelled == before + 2)
        await eventually(lambda: not server.connections)

    served(test)


def test_a_server_that_stops_lets_calls_end_and_takes_no_new_one() -> None:
    async def test(server: serving.Server, port: int) -> None:
        async with connected(port) as found, connected(port) as other:
            call = found.call("/test.Test/EchoAll", {})
            await call.send(b"before")
            assert await call.receive() == b"before"
            stopping = asyncio.create_task(server.stop(5))
            await eventually(lambda: len(server.connections) == 1)  # the other had nothing to wait for
            with pytest.raises(RpcFailed):
                await other.unary("/test.Test/Echo", b"", {}, timeout_s=2)
            with pytest.raises(RpcFailed, match="leaving"):
                await found.unary("/test.Test/Echo", b"", {}, timeout_s=2)
            await call.send(b"after", last=True)
            assert [await call.receive(), await call.receive()] == [b"after", None]
            await stopping

    served(test)


def test_a_server_that_stops_cuts_what_does_not_end() -> None:
    async def test(server: serving.Server, port: int) -> None:
        async with connected(port) as found:
            call = found.call("/test.Test/Patient", {})
            await eventually(lambda: patient.running == 1)
            await server.stop(0.05)
            with pytest.raises(RpcFailed):
                await call.receive()
        await eventually(lambda: patient.running == 0)

    served(test)


class Raw:
    """A client that says what it wants, and takes only what it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http.initiate_connection()
        self._events: list[Any] = []

    async def say(self) -> None:
        self._writer.write(self.http.data_to_send())
        await self._writer.drain()

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
        async with asyncio.timeout(5), raw(port) as found:
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
        assert 0 < sent <= serving.STREAM_WINDOW

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
        found._writer.write(b"\0\0\4\3\0\0\0\0\0" + b"\0\0\0\0")  # a reset of stream 0
        await found._writer.drain()
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
