"""What the fake agent is asked and what it may answer, as values; and how they look on the wire. No I/O."""

from __future__ import annotations

import ctypes
import dataclasses
import ipaddress
from collections.abc import Sequence

from ambient.dataplane import abi

from .apps import Address

_Bytes16 = ctypes.c_uint8 * 16


def addr(address: Address) -> abi.Addr:
    ip = ipaddress.ip_address(address[0])
    packed = b"\0" * 10 + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed
    return abi.Addr(ip=_Bytes16.from_buffer_copy(packed), port=address[1])


def read(raw: abi.Addr) -> Address:
    """The Python socket address; ("::", 0) for none."""
    ip = ipaddress.IPv6Address(bytes(raw.ip))
    return str(ip.ipv4_mapped or ip), raw.port


@dataclasses.dataclass(frozen=True)
class Question:
    """ACCEPTED, TUNNEL or REQUEST, with what its tail said."""

    kind: abi.Type
    worker: int
    body: abi.Accepted | abi.TunnelQuestion | abi.Request
    cert: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def authority(self) -> str:
        return dict(self.headers)[":authority"]

    @property
    def source(self) -> Address:
        return read(self.body.from_)

    @property
    def to(self) -> Address:
        return read(self.body.to)


@dataclasses.dataclass(frozen=True)
class Ended:
    """ENDED or ROW_CONN."""

    worker: int
    body: abi.Conn
    text: str = ""

    @property
    def reason(self) -> abi.Reason:
        return abi.Reason(self.body.reason)

    @property
    def source(self) -> Address:
        return read(self.body.from_)

    @property
    def to(self) -> Address:
        return read(self.body.to)

    @property
    def dialled(self) -> Address:
        return read(self.body.dialled)

    @property
    def moved(self) -> tuple[int, int]:
        return self.body.sent, self.body.received

    def __repr__(self) -> str:
        return (
            f"Ended({self.reason.name}, error={self.body.error}, {self.source} -> {self.to}, moved={self.moved}, "
            f"answer={self.body.answer}, {self.text!r})"
        )


@dataclasses.dataclass(frozen=True)
class Choice:
    """`authority` None: dial in the clear."""

    dial: Address
    authority: Address | None = None
    target: int = 0
    context: int = 0
    weight: int = 1

    def pack(self) -> bytes:
        return bytes(
            abi.Choice(
                dial=addr(self.dial),
                authority=abi.Addr() if self.authority is None else addr(self.authority),
                target=self.target,
                context=self.context,
                weight=self.weight,
                flags=0 if self.authority is None else abi.ChoiceFlag.VIA_TUNNEL,
            )
        )


@dataclasses.dataclass(frozen=True)
class Carry:
    choices: Sequence[Choice]
    remember: bool = False
    show_client: bool = False
    uses: int = 0
    pod: int = 1
    label: bytes = b""
    baggage: bytes = b""
    host: bytes = b""


@dataclasses.dataclass(frozen=True)
class Accept:
    remember: bool = True
    label: bytes = b""


@dataclasses.dataclass(frozen=True)
class Refuse:
    status: int = 401
    remember: bool = False
    label: bytes = b""


Verdict = Carry | Accept | Refuse


def pack_answer(question: int, number: int, verdict: Verdict) -> tuple[abi.Answer, bytes]:
    """The ANSWER and its tail."""
    answer = abi.Answer(question=question, answer=number, label_len=len(verdict.label))
    answer.flags = abi.AnswerFlag.REMEMBER if verdict.remember else 0
    match verdict:
        case Carry():
            answer.verdict = abi.Verdict.CARRY
            answer.flags |= abi.AnswerFlag.SHOW_CLIENT if verdict.show_client else 0
            answer.pod, answer.uses, answer.choices = verdict.pod, verdict.uses, len(verdict.choices)
            answer.baggage_len, answer.host_len = len(verdict.baggage), len(verdict.host)
            choices = b"".join(choice.pack() for choice in verdict.choices)
            return answer, choices + verdict.label + verdict.baggage + verdict.host
        case Accept():
            answer.verdict = abi.Verdict.ACCEPT
        case Refuse():
            answer.verdict, answer.status = abi.Verdict.REFUSE, verdict.status
    return answer, verdict.label


def read_headers(tail: bytes) -> tuple[tuple[str, str], ...]:
    parts = tail.decode().split("\0")
    assert parts.pop() == "", "the headers do not end in a zero"
    assert len(parts) % 2 == 0, "a header without a value"
    return tuple(zip(parts[::2], parts[1::2], strict=True))
