"""The server's connections, spoken to by our client and by grpcio's."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import grpc
import grpc.aio
import pytest

from ambient.xds import credentials, serving
from ambient.xds.call import RpcFailed, Status
from ambient.xds.channel import Channel

from . import replica
from .echoes import BIG, connected, patient, served, spoken_to
from .replica import NAME, authority, eventually


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


def test_a_call_goes_on_after_more_than_any_window_was_said_in_little_messages() -> None:
    async def test(found: Channel) -> None:
        call = found.call("/test.Test/EchoAsItComes", {})
        message = b"x" * 10_000
        for _ in range(2 * serving.CONNECTION_WINDOW // len(message)):
            await call.send(message)
            assert await call.receive() == message

    spoken_to(test)


def test_what_calls_said_in_little_messages_takes_no_room_from_later_ones() -> None:
    async def test(found: Channel) -> None:
        message = b"x" * 16_000
        assert len(message) < serving.CREDIT_BYTES  # so none of them is credited before its end
        for _ in range(2 * serving.CONNECTION_WINDOW // len(message)):
            call = found.call("/test.Test/EchoAsItComes", {})
            await call.send(message)
            assert await call.receive() == message
            call.cancel()

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
            assert await one(b"x" * 100_000, timeout=30) == b"x" * 100_000
            with pytest.raises(grpc.aio.AioRpcError, match="not you") as refused:
                await one(b"", timeout=30, metadata=(("refuse", "not you"),))
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            many: Any = found.stream_stream("/test.Test/EchoAsItComes")
            assert [each async for each in many(iter([b"1", b"2", b"3"]), timeout=30)] == [b"1", b"2", b"3"]
            much: Any = found.stream_stream("/test.Test/Flood")
            assert [len(each) async for each in much(iter([]), timeout=30)] == [BIG]

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


def test_a_start_that_is_cancelled_leaves_no_socket() -> None:
    async def test() -> None:
        server = serving.Server({})
        listener = socket.create_server(("127.0.0.1", 0))
        starting = asyncio.create_task(server.start(listener, credentials.Renewed(replica.served)))
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await server.stop()
        assert listener.fileno() == -1

    asyncio.run(test())
