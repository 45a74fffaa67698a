"""Mirror of engine/abi.h: the structs and numbers that agent and engine share. Layout only: no sockets, no decisions.

Every name here is the header's without its `amb_`/`AMB_` prefix. A test compiles the header and compares sizes and
offsets, so that neither side can drift.
"""

from __future__ import annotations

import ctypes
import enum
from typing import Annotated, Any, TypeVar, get_type_hints

from ambient.capture.abi import Role as Role  # the same numbers: a listener's role is the kernel's and the engine's

ABI = 5
ABI_OLDEST = 3
PACKET_MAX = 65536
MESSAGE_MAX = 65528
FDS_MAX = 64
CHOICES_MAX = 16


class Type(enum.IntEnum):
    HELLO = 1
    ACCEPTED = 2
    TUNNEL = 3
    REQUEST = 4
    DIAL_FAILED = 5
    STASH_LOW = 6
    ENDED = 7
    IDLE = 8
    ROW_ANSWER = 9
    ROW_CONN = 10
    ROW_LISTENER = 11
    ROW_END = 12
    SETTINGS = 64
    CLIENTS_MAP = 65
    POD = 66
    STASH = 67
    CONTEXT = 68
    LISTEN = 69
    UNLISTEN = 70
    LEAVE = 71
    ANSWER = 72
    FORGET = 73
    CUT = 74
    INVENTORY = 75
    SEEN = 76
    CONTEXTS = 77
    DRAIN = 78
    SPEAKS = 79


class Verdict(enum.IntEnum):
    CARRY = 1
    ACCEPT = 2
    REFUSE = 3


class AnswerFlag(enum.IntFlag):
    REMEMBER = 1
    SHOW_CLIENT = 2


class ChoiceFlag(enum.IntFlag):
    VIA_TUNNEL = 1


class SettingsFlag(enum.IntFlag):
    NO_EARLY_DATA = 1
    ACKNOWLEDGES = 2


class Reason(enum.IntEnum):
    OPEN = 0
    CLOSED = 1
    RESET_CLIENT = 2
    RESET_SERVER = 3
    CUT = 4
    REFUSED = 5
    NO_ANSWER = 6
    NO_SOCKET = 7
    NO_CONTEXT = 8
    DIAL = 9
    HANDSHAKE = 10
    PEER_REFUSED = 11
    BAD_REQUEST = 12
    PROTOCOL = 13
    TIMEOUT = 14
    TUNNEL_LOST = 15
    EXPIRED = 16
    RESOURCES = 17
    STRANGER = 18


_REASON_NAMES = {int(reason): reason.name.lower() for reason in Reason}


def reason_name(number: int) -> str:
    """A metric label. An engine of a later version may have reasons that have no name here."""
    return _REASON_NAMES.get(number) or f"reason_{number}"


u16 = Annotated[int, ctypes.c_uint16]
u32 = Annotated[int, ctypes.c_uint32]
u64 = Annotated[int, ctypes.c_uint64]
bytes16 = Annotated[Any, ctypes.c_uint8 * 16]


class Struct(ctypes.Structure):
    """A C struct; `layout` makes its fields of the class's annotations, in their order."""


_S = TypeVar("_S", bound=type[Struct])


def layout(cls: _S) -> _S:
    hints = get_type_hints(cls, include_extras=True)
    cls._fields_ = [(name, getattr(hints[name], "__metadata__", (hints[name],))[0]) for name in cls.__annotations__]
    return cls


@layout
class Head(Struct):
    type: u16
    fds: u16
    size: u16
    body: u16


@layout
class Addr(Struct):
    ip: bytes16
    port: u32
    zero: u32


@layout
class Ref(Struct):
    id: u64


@layout
class PodRef(Struct):
    pod: u64
    have: u32
    want: u32


@layout
class Hello(Struct):
    abi: u32
    worker: u32
    workers: u32
    pid: u32
    start_at: u64
    leaving: u32
    build_len: u32
    oldest: u32
    zero: u32


@layout
class Accepted(Struct):
    question: u64
    listener: u64
    from_: Addr
    to: Addr


@layout
class TunnelQuestion(Struct):
    question: u64
    listener: u64
    target: u64
    handshake_ns: u64
    from_: Addr
    to: Addr
    cert_len: u32
    zero: u32


@layout
class Request(Struct):
    question: u64
    listener: u64
    peer: u64
    from_: Addr
    to: Addr
    headers_len: u32
    zero: u32


@layout
class DialFailed(Struct):
    answer: u64
    target: u64
    dial: Addr
    reason: u32
    error: u32


@layout
class Conn(Struct):
    id: u64
    listener: u64
    answer: u64
    start_at: u64
    duration_ns: u64
    setup_ns: u64
    sent: u64
    received: u64
    from_: Addr
    to: Addr
    dialled: Addr
    target: u64
    trace: bytes16
    reason: u32
    error: u32
    text_len: u32
    zero: u32


@layout
class AnswerRow(Struct):
    answer: u64
    opened: u64
    closed: u64
    sent: u64
    received: u64
    flags: u32
    verdict: u32
    label_len: u32
    zero: u32


@layout
class Settings(Struct):
    connect_ms: u32
    handshake_ms: u32
    request_ms: u32
    answer_ms: u32
    keepalive_s: u32
    tunnel_idle_s: u32
    max_streams: u32
    elephant_bytes: u32
    retries: u32
    flags: u32
    under_way: u32
    zero: u32


@layout
class Pod(Struct):
    pod: u64
    stash_family: u32
    stash_want: u32


@layout
class Context(Struct):
    context: u64
    expires_at: u64
    cert_len: u32
    key_len: u32
    roots_len: u32
    zero: u32


@layout
class Contexts(Struct):
    count: u32
    zero: u32


@layout
class Listen(Struct):
    listener: u64
    pod: u64
    context: u64
    role: u32
    zero: u32


@layout
class Choice(Struct):
    dial: Addr
    authority: Addr
    target: u64
    context: u64
    weight: u32
    flags: u32


@layout
class Answer(Struct):
    question: u64
    answer: u64
    pod: u64
    verdict: u32
    flags: u32
    status: u32
    uses: u32
    choices: u32
    label_len: u32
    baggage_len: u32
    host_len: u32


@layout
class Cut(Struct):
    answer: u64
    reason: u32
    zero: u32


@layout
class Drain(Struct):
    timeout_s: u32
    zero: u32


@layout
class Speaks(Struct):
    abi: u32
    oldest: u32


@layout
class Inventory(Struct):
    id: u64
    answers: u32
    conns: u32
    listeners: u32
    zero: u32


@layout
class ClientKey(Struct):
    netns_cookie: u64
    ip: bytes16
    port: u32
    zero: u32


@layout
class ClientValue(Struct):
    ip: bytes16
    port: u32
    writer: u32


# What each message of the engine carries before its tail.
BODIES: dict[Type, type[Struct]] = {
    Type.HELLO: Hello,
    Type.ACCEPTED: Accepted,
    Type.TUNNEL: TunnelQuestion,
    Type.REQUEST: Request,
    Type.DIAL_FAILED: DialFailed,
    Type.STASH_LOW: PodRef,
    Type.ENDED: Conn,
    Type.IDLE: PodRef,
    Type.ROW_ANSWER: AnswerRow,
    Type.ROW_CONN: Conn,
    Type.ROW_LISTENER: Listen,
    Type.ROW_END: Ref,
}
