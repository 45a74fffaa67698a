"""A gRPC call without a connection: framing, credit, how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.xds.call import AHEAD_BYTES, Call, Messages, RpcFailed, Status


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(each).to_bytes(4, "big") + each for each in messages)


@given(st.lists(st.binary(max_size=20), max_size=4), st.lists(st.integers(0, 60), max_size=6))
def test_messages_are_found_however_the_bytes_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = framed(*messages)
    reader, found, last = Messages(), [], 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        found += reader.feed(data[last:cut])
        last = cut
    assert found == messages


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"\1\0\0\0\1x", "a message compressed"), (b"\0\xff\xff\xff\xff", "a message of 4294967295 bytes")],
    ids=["compressed", "too long"],
)
def test_what_was_never_asked_for_is_an_error(data: bytes, what: str) -> None:
    with pytest.raises(RpcFailed, match=what):
        Messages().feed(data)


@dataclass
class Carrier:
    sent: list[bytes] = field(default_factory=list)
    credited: list[int] = field(default_factory=list)
    resets: int = 0

    async def send(self, _: Call, data: bytes, last: bool) -> None:
        self.sent += [data + b"." * last]

    def credit(self, _: Call, count: int) -> None:
        self.credited += [count] if count else []

    def reset(self, _: Call) -> None:
        self.resets += 1


def a_call() -> tuple[Call, Carrier]:
    carrier = Carrier()
    return Call(carrier, 1), carrier


OK = {":status": "200", "content-type": "application/grpc+proto"}


def receive_all(call: Call) -> list[bytes]:
    async def run() -> list[bytes]:
        found = []
        while (message := await call.receive()) is not None:
            found.append(message)
        return found

    return asyncio.run(run())


def test_a_message_is_sent_with_its_length_before_it() -> None:
    call, carrier = a_call()
    asyncio.run(call.send(b"abc", last=True))
    assert carrier.sent == [b"\0\0\0\0\3abc."]


def test_messages_then_a_good_end() -> None:
    call, _ = a_call()
    call.on_headers(OK)
    call.on_data(framed(b"one", b"two"), 16)
    call.on_headers({"grpc-status": "0"})
    call.finish()
    assert receive_all(call) == [b"one", b"two"]


def test_a_message_is_credited_when_it_is_taken_and_padding_at_once() -> None:
    call, carrier = a_call()
    call.on_data(framed(b"one")[:2], 2)
    call.on_data(framed(b"one")[2:] + framed(b"three"), 16 + 9)
    assert carrier.credited == [9]
    asyncio.run(call.receive())
    assert carrier.credited == [9, 8]
    asyncio.run(call.receive())
    assert carrier.credited == [9, 8, 10]


def test_a_message_longer_than_the_window_is_credited_on_the_way() -> None:
    call, carrier = a_call()
    data = framed(b"x" * 1_000_000)
    for start in range(0, len(data), 16384):
        call.on_data(data[start : start + 16384], len(data[start : start + 16384]))
        assert start + 16384 - sum(carrier.credited) <= AHEAD_BYTES + 16384
    asyncio.run(call.receive())
    assert sum(carrier.credited) == len(data)


def test_what_a_cancelled_call_did_not_take_is_credited() -> None:
    call, carrier = a_call()
    call.on_data(framed(b"one", b"two") + b"\0\0", 18)
    call.cancel()
    assert carrier.credited == [18]
    assert call.ended


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({**OK, "grpc-status": "16", "grpc-message": "who%20are you%3F"}, Status.UNAUTHENTICATED, "who are you?"),
        ({**OK, "grpc-status": "14"}, Status.UNAVAILABLE, "gRPC status 14"),
        ({**OK, "grpc-status": "x"}, Status.UNKNOWN, "gRPC status x"),
        ({":status": "404", "content-type": "text/html"}, Status.UNKNOWN, "no gRPC server answered: HTTP status 404"),
        ({":status": "200", "content-type": "text/html"}, Status.UNKNOWN, "content-type 'text/html'"),
        (OK, Status.UNKNOWN, "the server ended the call without a status"),
    ],
    ids=["refused", "without words", "no number", "not found", "no gRPC", "no status"],
)
def test_a_bad_end_says_how(headers: dict[str, str], status: int, text: str) -> None:
    call, _ = a_call()
    call.on_headers(headers)
    call.finish()
    with pytest.raises(RpcFailed, match=text.replace("?", r"\?")) as failed:
        receive_all(call)
    assert failed.value.status == status


def test_messages_before_a_bad_end_are_received_first() -> None:
    call, _ = a_call()
    call.on_headers(OK)
    call.on_data(framed(b"one"), 8)
    call.finish(Status.UNAVAILABLE, "the connection broke")

    async def run() -> None:
        assert await call.receive() == b"one"
        with pytest.raises(RpcFailed, match="the connection broke"):
            await call.receive()

    asyncio.run(run())


def test_what_comes_after_the_end_changes_nothing() -> None:
    call, _ = a_call()
    call.on_headers(OK)
    call.finish(Status.UNAVAILABLE, "broke")
    call.on_headers({"grpc-status": "0"})
    call.finish()
    with pytest.raises(RpcFailed, match="broke"):
        receive_all(call)


def test_a_message_that_is_none_ends_the_call_and_tells_the_server() -> None:
    call, carrier = a_call()
    call.on_data(b"\1\0\0\0\0", 5)
    assert carrier.resets == 1
    with pytest.raises(RpcFailed, match="compressed"):
        receive_all(call)


def test_cancelling_tells_the_server_once() -> None:
    call, carrier = a_call()
    call.cancel()
    call.cancel()
    assert carrier.resets == 1
    assert call.ended


def test_a_call_waits_for_news() -> None:
    call, _ = a_call()

    async def run() -> bytes | None:
        waiting = asyncio.create_task(call.receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        call.on_data(framed(b"late"), 9)
        return await waiting

    assert asyncio.run(run()) == b"late"
