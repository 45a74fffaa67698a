"""The gRPC client against grpcio's server, over TLS: calls of every kind, and every way a connection can fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from ambient.xds import channel
from ambient.xds.call import RpcFailed, Status
from ambient.xds.channel import Channel, Keepalive

from .replica import NAME, client_tls, eventually, grpcio, server_tls

SHORT = Keepalive(idle_s=0.05, answer_s=0.05)
LONG = Keepalive(idle_s=5.0, answer_s=5.0)


@contextlib.asynccontextmanager
async def connected(
    port: int, *, keepalive: Keepalive = LONG, tls: ssl.SSLContext | None = None, name: str = NAME
) -> AsyncIterator[Channel]:
    async with channel.connect(
        "127.0.0.1", port, tls or client_tls(), name, timeout_s=1.0, keepalive=keepalive
    ) as found:
        yield found


async def echo(request: bytes, context: Any) -> bytes:
    metadata = dict(context.invocation_metadata())
    if (why := metadata.get("refuse")) is not None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
    return request + metadata.get("suffix", "").encode()


async def echo_all(_: Any, context: Any) -> None:
    while (data := await context.read()) is not grpc.aio.EOF:
        await context.write(data)


async def flood(_: Any, context: Any) -> None:
    """As much as the client takes."""
    size = int(await context.read())
    while True:
        await context.write(b"x" * size)
        flooded.append(size)


async def never(_: bytes, __: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


async def twice(_: bytes, context: Any) -> None:
    await context.write(b"1")
    await context.write(b"2")


async def nothing(_: bytes, __: Any) -> None:
    pass


flooded: list[int] = []
HANDLER = grpc.method_handlers_generic_handler(
    "test.Test",
    {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "EchoAll": grpc.stream_stream_rpc_method_handler(echo_all),
        "Flood": grpc.stream_stream_rpc_method_handler(flood),
        "Twice": grpc.unary_stream_rpc_method_handler(twice),
        "Nothing": grpc.unary_stream_rpc_method_handler(nothing),
        "Never": grpc.unary_unary_rpc_method_handler(never),
    },
)


def against_grpcio(test: Callable[[Channel], Awaitable[None]]) -> None:
    async def run() -> None:
        async with grpcio(HANDLER) as (_, port), connected(port) as found:
            await test(found)

    asyncio.run(run())


def test_one_message_there_and_one_back() -> None:
    async def test(found: Channel) -> None:
        for number in range(3):
            request = b"hello %d" % number
            assert await found.unary("/test.Test/Echo", request, {"suffix": "!"}, timeout_s=2) == request + b"!"

    against_grpcio(test)


def test_calls_share_a_connection_and_do_not_wait_for_each_other() -> None:
    async def test(found: Channel) -> None:
        hanging = asyncio.create_task(found.unary("/test.Test/Never", b"", {}, timeout_s=5))
        answers = await asyncio.gather(
            *(found.unary("/test.Test/Echo", b"%d" % number, {}, timeout_s=2) for number in range(50))
        )
        assert answers == [b"%d" % number for number in range(50)]
        assert not hanging.done()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        assert await found.unary("/test.Test/Echo", b"still", {}, timeout_s=2) == b"still"

    against_grpcio(test)


def test_messages_go_both_ways_until_one_side_has_said_all() -> None:
    async def test(found: Channel) -> None:
        stream = found.call("/test.Test/EchoAll", {})
        for number in range(5):
            await stream.send(b"%d" % number)
            assert await stream.receive() == b"%d" % number
        await stream.send(b"last", last=True)
        assert await stream.receive() == b"last"
        assert await stream.receive() is None

    against_grpcio(test)


def test_messages_longer_than_any_window_pass_both_ways() -> None:
    async def test(found: Channel) -> None:
        stream = found.call("/test.Test/EchoAll", {})
        message = bytes(range(256)) * (12 << 10)  # 3 MiB
        receiving = asyncio.create_task(stream.receive())
        await stream.send(message)
        assert await receiving == message

    against_grpcio(test)


def test_a_server_that_talks_on_is_held_back_until_somebody_takes_its_messages() -> None:
    async def test(found: Channel) -> None:
        flooded.clear()
        stream = found.call("/test.Test/Flood", {})
        await stream.send(b"65536")
        sent = -1
        while sent != len(flooded):
            sent = len(flooded)
            await asyncio.sleep(0.05)
        assert 0 < sum(flooded) < 3 * channel.STREAM_WINDOW
        for _ in range(64):
            assert len(await stream.receive() or b"") == 65536
        await stream.send(b"")
        assert len(await stream.receive() or b"") == 65536
        assert len(flooded) > sent
        stream.cancel()

    against_grpcio(test)


def test_a_refusal_comes_with_its_status_and_text() -> None:
    async def test(found: Channel) -> None:
        with pytest.raises(RpcFailed, match=r"^not you: 100% of you$") as failed:
            await found.unary("/test.Test/Echo", b"", {"refuse": "not you: 100% of you"}, timeout_s=2)
        assert failed.value.status == 7
        with pytest.raises(RpcFailed) as failed:
            await found.unary("/test.Test/None", b"", {}, timeout_s=2)
        assert failed.value.status == 12
        assert await found.unary("/test.Test/Echo", b"still", {}, timeout_s=2) == b"still"

    against_grpcio(test)


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_asked() -> None:
    async def test(found: Channel) -> None:
        with pytest.raises(RpcFailed, match=r"no answer to /test\.Test/Never within 0\.05 s") as failed:
            await found.unary("/test.Test/Never", b"", {}, timeout_s=0.05)
        assert failed.value.status == Status.DEADLINE_EXCEEDED
        assert await found.unary("/test.Test/Echo", b"still", {}, timeout_s=2) == b"still"

    against_grpcio(test)


def test_a_unary_call_answered_with_several_messages_or_none_failed() -> None:
    async def test(found: Channel) -> None:
        with pytest.raises(RpcFailed, match="is not one message"):
            await found.unary("/test.Test/Twice", b"", {}, timeout_s=2)
        with pytest.raises(RpcFailed, match="is not one message"):
            await found.unary("/test.Test/Nothing", b"", {}, timeout_s=2)

    against_grpcio(test)


# --- ends


def test_a_server_that_stops_ends_the_calls_and_the_connection() -> None:
    async def run() -> None:
        async with grpcio(HANDLER) as (server, port), connected(port) as found:
            stream = found.call("/test.Test/EchoAll", {})
            await stream.send(b"x")
            await stream.receive()
            stopping = asyncio.create_task(server.stop(5))  # GOAWAY first, and time for what runs
            with pytest.raises(RpcFailed) as failed:
                await stream.receive()
            assert failed.value.status == Status.UNAVAILABLE
            with pytest.raises(RpcFailed, match=r"the server sends its clients away|the connection is over") as failed:
                found.call("/test.Test/Echo", {})
            assert failed.value.status == Status.UNAVAILABLE
            await server.stop(0)
            await stopping

    asyncio.run(run())


@contextlib.asynccontextmanager
async def peer(behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A server that only knows TLS, and does what the test wants."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await behave(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls())
    async with server:
        yield server.sockets[0].getsockname()[1]


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(1000)


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1000)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await silent(reader, writer)


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (silent, "no answer to a ping within 0.05 s"),
        (hang_up, "the server closed the connection"),
        (nonsense, "the connection is over"),
    ],
)
def test_a_connection_that_is_lost_fails_its_calls_with_the_reason(behave: Any, why: str) -> None:
    async def run() -> None:
        async with peer(behave) as port, connected(port, keepalive=SHORT) as found:
            with pytest.raises(RpcFailed, match=why) as failed:
                await found.unary("/test.Test/Echo", b"", {}, timeout_s=4)
            assert failed.value.status == Status.UNAVAILABLE
            with pytest.raises(RpcFailed, match=why):
                found.call("/test.Test/Echo", {})

    asyncio.run(run())


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An HTTP/2 server that knows no page."""
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    http.initiate_connection()
    while data := await reader.read(1000):
        for event in http.receive_data(data):
            pings.extend([event] if isinstance(event, h2.events.PingReceived) else [])
            if isinstance(event, h2.events.RequestReceived):
                http.send_headers(event.stream_id, [(":status", "404"), ("content-type", "text/html")])
                http.send_data(event.stream_id, b"<h1>not here</h1>", end_stream=True)
        writer.write(http.data_to_send())


pings: list[h2.events.PingReceived] = []


def test_a_peer_that_answers_pings_is_alive() -> None:
    async def run() -> None:
        pings.clear()
        async with peer(web) as port, connected(port, keepalive=SHORT) as found:
            await eventually(lambda: len(pings) >= 3)
            found.call("/test.Test/Echo", {})

    asyncio.run(run())


def test_what_is_no_grpc_server_is_named() -> None:
    async def run() -> None:
        async with peer(web) as port, connected(port) as found:
            with pytest.raises(RpcFailed, match="no gRPC server answered: HTTP status 404"):
                await found.unary("/test.Test/Echo", b"", {}, timeout_s=2)

    asyncio.run(run())


def test_leaving_ends_the_calls() -> None:
    async def run() -> None:
        async with grpcio(HANDLER) as (_, port):
            async with connected(port) as found:
                stream = found.call("/test.Test/EchoAll", {})
            with pytest.raises(RpcFailed, match="closed here"):
                await stream.receive()

    asyncio.run(run())


# --- who is there


def refused(port: int, why: str, **how: Any) -> None:
    async def run() -> None:
        with pytest.raises(RpcFailed, match=f"cannot connect to 127.0.0.1 port {port}: .*{why}") as failed:
            async with connected(port, **how):
                raise AssertionError("connected")
        assert failed.value.status == Status.UNAVAILABLE

    asyncio.run(run())


def test_nobody_there() -> None:
    refused(1, "Connect call failed|refused")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"name": "other.svc"}, "certificate verify failed: Hostname mismatch"),
        ({"tls": "another authority's"}, "certificate verify failed"),
    ],
    ids=["another name", "another authority"],
)
def test_a_server_that_does_not_prove_who_it_is_is_not_talked_to(how: dict[str, Any], why: str) -> None:
    if "tls" in how:
        context = ssl.create_default_context()
        trustme.CA().configure_trust(context)
        context.set_alpn_protocols(["h2"])
        how = {"tls": context}

    async def run() -> None:
        async with grpcio(HANDLER) as (_, port):
            with pytest.raises(RpcFailed, match=why) as failed:
                async with connected(port, **how):
                    raise AssertionError("connected")
            assert failed.value.status == Status.UNAVAILABLE

    asyncio.run(run())


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(RpcFailed, match=r"no answer within 0\.05 s"):
                async with channel.connect("127.0.0.1", port, client_tls(), NAME, timeout_s=0.05, keepalive=LONG):
                    raise AssertionError("connected")

    asyncio.run(run())
