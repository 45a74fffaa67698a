"""A Proxy with one captured pod, spoken to as by an engine; what it answers and records is kept."""

from __future__ import annotations

import random

from ambient.dataplane import abi, wire
from ambient.dataplane.pods import listener_id
from ambient.dataplane.proxy import Proxy
from ambient.dataplane.wire import Message
from ambient.observe.records import Ending, Flow
from tests.dataplane.worlds import (
    a_world,
    the_pods,
)

OUTBOUND, TUNNEL, PLAIN = abi.Role.OUTBOUND, abi.Role.INBOUND_TUNNEL, abi.Role.INBOUND_PLAIN


class Link:
    """Keeps what was sent, as a worker would see it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.engine = "abc"
        self.acknowledged = 0

    def send(self, *messages: Message) -> None:
        self.sent += messages

    def seen(self) -> None:
        self.acknowledged += 1

    def restock(self, _link: object, cookie: int, want: int) -> None:
        self.sent.append(Message(abi.Type.STASH, abi.PodRef(pod=cookie, want=want)))

    def answer(self) -> abi.Answer:
        body = self.sent.pop().body
        assert isinstance(body, abi.Answer)
        return body


class Records:
    def __init__(self) -> None:
        self.all: list[tuple[Flow, Ending]] = []
        self.failures: list[str] = []
        self.handshakes: list[float] = []

    def ended(self, flow: Flow, ending: Ending) -> None:
        self.all.append((flow, ending))

    def handshake(self, seconds: float) -> None:
        self.handshakes.append(seconds)

    def dial_failed(self, reason: str) -> None:
        self.failures.append(reason)


class Setup:
    def __init__(self, *more: object) -> None:
        self.world = a_world(*more)
        self.records, self.link = Records(), Link()
        self.pods = the_pods(self.world)
        self.proxy = Proxy(
            self.world,
            self.pods,
            self.records,
            first_id=1,
            clock=lambda: 0.0,
            rng=random.Random(1),
        )
        self.proxy.serve(self.link)  # type: ignore[arg-type]
        (pod,) = self.pods
        self.cookie = pod.cookie

    def say(self, kind: abi.Type, body: abi.Struct, tail: bytes = b"") -> None:
        self.proxy.on_message(self.link, Message(kind, body, tail))  # type: ignore[arg-type]

    def accepted(self, role: abi.Role, source: object, to: object, port: int, question: int = 9) -> abi.Answer:
        body = abi.Accepted(
            question=question,
            listener=listener_id(self.cookie, role),
            from_=wire.addr(source, 40000),  # type: ignore[arg-type]
            to=wire.addr(to, port),  # type: ignore[arg-type]
        )
        self.say(abi.Type.ACCEPTED, body)
        return self.link.answer()
