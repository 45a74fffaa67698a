"""One gRPC call as its client sees it: messages out, messages in, how it ended. Knows no socket and no message type.

Source: the gRPC project's "gRPC over HTTP/2".
"""

from __future__ import annotations

import asyncio
import collections
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

MESSAGE_MAX = 256 << 20  # bytes; other control planes send their whole state in one message
PREFIX_BYTES = 5  # before each message: whether it is compressed, and its length
AHEAD_BYTES = 256 << 10  # of a message that is not whole yet: less than a window, or a longer one would never be


class Status(enum.IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


def name_of(status: int) -> str:
    """For people; a server may send any number."""
    return {each.value: each.name for each in Status}.get(status, f"status {status}")


class RpcFailed(Exception):
    """A call ended otherwise than well, or there was no connection for it (UNAVAILABLE)."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class Carrier(Protocol):
    """The connection, as a call needs it."""

    async def send(self, call: Call, data: bytes, last: bool) -> None:
        """Waits as long as the peer takes no more. Raises RpcFailed."""

    def credit(self, call: Call, count: int) -> None:
        """Let the peer send as many bytes more."""

    def reset(self, call: Call) -> None:
        """Tell the peer that nobody is interested any more."""


def is_message(data: bytes) -> bool:
    """Whether it is one message with its prefix, no more and no less."""
    return (
        len(data) >= PREFIX_BYTES
        and not data[0]
        and int.from_bytes(data[1:PREFIX_BYTES], "big") == len(data) - PREFIX_BYTES
    )


@dataclass(slots=True)
class Messages:
    """Bytes to messages of so many bytes at most."""

    most: int = MESSAGE_MAX
    _partial: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        """Bytes that are of no whole message yet."""
        return len(self._partial)

    @property
    def expected(self) -> int:
        """Bytes of the message that is not whole yet, with its prefix; 0 while nobody can tell."""
        known = len(self._partial) >= PREFIX_BYTES
        return PREFIX_BYTES + int.from_bytes(self._partial[1:PREFIX_BYTES], "big") if known else 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises RpcFailed for what is none."""
        self._partial += data
        found = []
        while len(self._partial) >= PREFIX_BYTES:
            compressed, size = self._partial[0], int.from_bytes(self._partial[1:PREFIX_BYTES], "big")
            if compressed or size > self.most:
                what = "compressed" if compressed else f"of {size} bytes, {self.most} at most are taken"
                raise RpcFailed(Status.INTERNAL, f"there came a message {what}: nobody asked for that")
            if len(self._partial) < PREFIX_BYTES + size:
                break
            found.append(bytes(self._partial[PREFIX_BYTES : PREFIX_BYTES + size]))
            del self._partial[: PREFIX_BYTES + size]
        return found


class Call:
    def __init__(self, carrier: Carrier, number: int) -> None:
        """Not for callers: Channel.call() is. number: of the HTTP/2 stream."""
        self.number = number
        self.ended = False
        self.said_last = False
        self.more_room = asyncio.Event()  # set when the peer may take more
        self._carrier = carrier
        self._messages = Messages()
        self._received: collections.deque[tuple[bytes, int]] = collections.deque()  # with what to credit for each
        self._advanced = 0  # credited of the message that is not whole yet
        self._news = asyncio.Event()
        self._status: int | None = None
        self._text = ""

    async def send(self, message: bytes, *, last: bool = False) -> None:
        """Raises RpcFailed when the call is over."""
        await self._carrier.send(self, b"\0" + len(message).to_bytes(PREFIX_BYTES - 1, "big") + message, last)

    async def receive(self) -> bytes | None:
        """The next message; None when the call ended well. Raises RpcFailed when it did not."""
        while not self._received:
            if self.ended:
                self.check()
                return None
            self._news.clear()
            await self._news.wait()
        message, count = self._received.popleft()
        self._carrier.credit(self, count)
        return message

    def check(self) -> None:
        """Raises RpcFailed if the call ended badly."""
        if self._status != Status.OK and self.ended:
            raise RpcFailed(Status.UNKNOWN if self._status is None else self._status, self._text)

    def cancel(self) -> None:
        """What is not taken yet will not be."""
        if not self.ended:
            self._carrier.reset(self)
            self.finish(Status.CANCELLED, "cancelled here")
        self._carrier.credit(self, sum(count for _, count in self._received) + len(self._messages) - self._advanced)
        self._received.clear()
        self._messages, self._advanced = Messages(), 0

    # What the connection tells

    def on_headers(self, headers: Mapping[str, str]) -> None:
        """The first headers, the trailers, or (of a call that failed at once) both in one."""
        if self.ended:
            return
        http, kind, status = (headers.get(name, "") for name in (":status", "content-type", "grpc-status"))
        if http and (http != "200" or not kind.startswith("application/grpc")):
            self.finish(Status.UNKNOWN, f"no gRPC server answered: HTTP status {http}, content-type {kind!r}")
        elif status:
            self._status = int(status) if status.isascii() and status.isdigit() else Status.UNKNOWN
            self._text = unquote(headers.get("grpc-message", "")) or f"gRPC status {status}"

    def on_data(self, data: bytes, count: int) -> None:
        """count: with padding. A message is credited when somebody takes it: that bounds what waits here."""
        self._carrier.credit(self, count - len(data))
        try:
            whole = self._messages.feed(data)
        except RpcFailed as error:
            self.finish(error.status, str(error))
            self._carrier.reset(self)
            self.cancel()
            return
        for message in whole:
            self._received.append((message, PREFIX_BYTES + len(message) - self._advanced))
            self._advanced = 0
            self._news.set()
        if (ahead := len(self._messages) - self._advanced) > AHEAD_BYTES:
            self._carrier.credit(self, ahead)
            self._advanced += ahead

    def finish(self, status: int | None = None, text: str = "the server ended the call without a status") -> None:
        """The call is over; status: None for what the server said of it."""
        if self.ended:
            return
        self.ended = True
        if status is not None or self._status is None:
            self._status, self._text = status, text
        self._news.set()
        self.more_room.set()
