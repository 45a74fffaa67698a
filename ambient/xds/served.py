"""One gRPC call as its server sees it: messages in, messages out, how it ends. Knows no socket and no message type.

Source: the gRPC project's "gRPC over HTTP/2".
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import quote

from ambient.xds.call import PREFIX_BYTES, Messages, RpcFailed, Status, is_message
from ambient.xds.room import Claim

Headers = list[tuple[str, str]]
START: Headers = [(":status", "200"), ("content-type", "application/grpc")]
AHEAD_BYTES = 32 << 10  # of a message that is not whole yet; what is longer needs room before more of it comes
PEER = ":peer"  # among metadata: the client's address. No client can say it: h2 knows no such pseudo-header
TEXT_MAX = 4_000  # bytes of an explanation: clients bound what headers they take
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Aborted(Exception):
    """Raised by a handler: the call ends with this status, and the client is told why."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class Carrier(Protocol):
    """The connection, as a call needs it."""

    def pump(self, call: ServerCall) -> None:
        """Something is to be sent: as much of it as the client takes now, the rest when it takes more."""

    def wanted(self) -> None:
        """Somebody takes what a call says: its client may be ahead of him."""

    def credit(self, call: ServerCall, count: int) -> None:
        """Let the client send as many bytes more."""

    def claim(self, call: ServerCall, count: int) -> Claim | None:
        """Room for a long message, now or later (on_room() says so); None if the client asks for too much."""


class ServerCall:
    def __init__(
        self, carrier: Carrier, number: int, path: str, metadata: Mapping[str, str], *, peer: str, most: int
    ) -> None:
        """Not for handlers. number: of the HTTP/2 stream; path: "/package.Service/Method"; peer: for logs; most: bytes
        of one message."""
        self.number, self.path, self.metadata, self.peer = number, path, metadata, peer
        self.unsent: collections.deque[memoryview] = collections.deque()
        self.half_closed = False  # the client says no more
        self.started = False  # the first headers are sent
        self.trailers: Headers | None = None  # to be sent when the rest is
        self.uncredited = 0  # bytes that came as on_message and that its client may not say again yet
        self.over = asyncio.Event()  # nobody is there any more to say something to
        self._carrier = carrier
        self._messages = Messages(most)
        self._advanced = 0  # credited of the message that is not whole yet
        self._claim: Claim | None = None  # the room for the message that is not whole yet, if it is a long one
        # with what to credit for each, and the room it takes until then
        self._waiting: collections.deque[tuple[bytes, int, Claim | None]] = collections.deque()
        self._wanted = False  # somebody takes messages
        self._news = asyncio.Event()
        self._taker: Callable[[bytes | None], None] | None = None

    async def receive(self) -> bytes | None:
        """The next message; None when the client says no more, or is gone."""
        self._ask_for_the_rest()
        while not self._waiting:
            if self.half_closed or self.over.is_set():
                return None
            self._news.clear()
            await self._news.wait()
        message, count, claim = self._waiting.popleft()
        self._carrier.credit(self, count)
        if claim is not None:
            claim.release()
        return message

    @property
    def partial(self) -> int:
        """Bytes that are of no whole message yet."""
        return len(self._messages)

    def deliver(self, taker: Callable[[bytes | None], None]) -> None:
        """From now on messages go to `taker` as they come, then None: for calls that live long and say little."""
        self._taker = taker
        self._ask_for_the_rest()
        while self._waiting:
            self._give(*self._waiting.popleft())
        if self.half_closed:
            taker(None)

    def send(self, message: bytes) -> None:
        """Say it as soon as the client takes it. Who says much waits for an answer before he says more."""
        if self.trailers is None and not self.over.is_set():
            self.unsent.append(memoryview(b"\0" + len(message).to_bytes(PREFIX_BYTES - 1, "big") + message))
            self._carrier.pump(self)

    def finish(self, status: Status = Status.OK, text: str = "") -> None:
        """The last word, after what was sent before."""
        if self.trailers is None and not self.over.is_set():
            said = quote(text.encode()[:TEXT_MAX].decode(errors="ignore"), safe=_PRINTABLE)
            self.trailers = [("grpc-status", str(int(status))), *([("grpc-message", said)] if text else [])]
            self._carrier.pump(self)

    # What the connection tells

    def on_data(self, data: bytes, count: int) -> None:
        """count: with padding. A message is credited when it is taken: that bounds what waits here."""
        self._carrier.credit(self, count - len(data))
        try:
            whole = self._messages.feed(data)
        except RpcFailed as error:
            self.finish(Status.RESOURCE_EXHAUSTED, str(error))
            return
        for message in whole:
            self._give(message, PREFIX_BYTES + len(message) - self._advanced, self._claim)
            self._advanced, self._claim = 0, None
        self._credit_ahead()

    def on_message(self, data: bytes) -> bool:
        """What may be one whole message: taken, unless it is not or nobody takes messages as they come."""
        if self._taker is None or self.half_closed or len(self._messages) or not is_message(data):
            return False
        self._taker(data[PREFIX_BYTES:])
        return True

    def on_half_closed(self) -> None:
        """The client says no more."""
        self.half_closed = True
        self._news.set()
        if self._taker is not None:
            self._taker(None)

    def on_over(self) -> None:
        """Everything is said, or the client is gone."""
        if not self.over.is_set():
            self.over.set()
            self.on_half_closed()
        self.unsent.clear()

    def drop(self) -> int:
        """Nobody takes any more what came: how many bytes that is, which were not credited."""
        count = sum(each for _, each, _ in self._waiting) + len(self._messages) - self._advanced
        for claim in (self._claim, *(each for _, _, each in self._waiting)):
            if claim is not None:
                claim.release()
        self._waiting.clear()
        self._messages, self._advanced, self._claim = Messages(), 0, None
        return count

    def fills(self, claim: Claim) -> bool:
        """Whether it is for the message that is not whole yet."""
        return claim is self._claim

    def on_room(self) -> None:
        """There is the room that was asked for."""
        self._credit_ahead()

    def _ask_for_the_rest(self) -> None:
        """From now on messages are wanted: a long one may come whole. Before, its client may be nobody."""
        if not self._wanted and not self.over.is_set():
            self._wanted = True
            self._carrier.wanted()
            self._credit_ahead()

    def _credit_ahead(self) -> None:
        """Of a message longer than the window the rest comes only when a part of it is credited before it is whole."""
        if not self._wanted or (ahead := len(self._messages) - self._advanced) <= AHEAD_BYTES:
            return
        if self._claim is None:
            self._claim = self._carrier.claim(self, self._messages.expected)
            if self._claim is None:
                self.finish(
                    Status.RESOURCE_EXHAUSTED, "your other calls' messages are too long to be kept beside this one"
                )
                return
        if self._claim.granted:
            self._carrier.credit(self, ahead)
            self._advanced += ahead

    def _give(self, message: bytes, count: int, claim: Claim | None) -> None:
        if self._taker is None:
            self._waiting.append((message, count, claim))
            self._news.set()
        else:
            self._carrier.credit(self, count)
            if claim is not None:
                claim.release()
            self._taker(message)
