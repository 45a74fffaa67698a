"""What the engine asks, as values that can be judged again at any time, and what the answer is made of. Pure.

A question holds everything its verdict depends on besides the World, so that a policy change, or a new agent that finds
the connections of the old one, can put it again. Its text form travels as the first line of the engine's label.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from ambient.capture.abi import Kind
from ambient.dataplane import abi
from ambient.model.mesh import Identity, IPAddress, address
from ambient.observe.records import Flow


@dataclass(frozen=True, slots=True)
class Outbound:
    """A captured pod dialled something."""

    client: str  # workload key
    uid: str
    cookie: int  # its netns: tunnels are never shared between pods
    to: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class Plaintext:
    """Somebody dialled a captured pod in the clear."""

    server: str
    uid: str
    source: IPAddress
    to: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a tunnel showed a certificate. `outbound`: the pod opened it to `remote`, else remote did."""

    pod: str
    uid: str
    outbound: bool
    remote: IPAddress
    identity: Identity


@dataclass(frozen=True, slots=True)
class Request:
    """An accepted peer asks for a connection to a captured pod."""

    server: str
    uid: str
    peer: Identity
    source: IPAddress
    to: IPAddress
    port: int
    service: str = ""  # host name of the Service that the peer asked for; for the record only


Question = Outbound | Plaintext | Peer | Request


def pod_of(question: Question) -> str:
    """The workload key of this node's own pod that it is about."""
    match question:
        case Outbound(client=key) | Plaintext(server=key) | Peer(pod=key) | Request(server=key):
            return key


_KINDS: dict[str, type[Question]] = {"outbound": Outbound, "plaintext": Plaintext, "peer": Peer, "request": Request}


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint to dial. `tunnel` 0: in the clear; else the number under which tunnels to it are shared."""

    ip: IPAddress
    port: int
    weight: int
    tunnel: int = 0
    context: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One endpoint among which the kernel chooses. `cookie` 0: not direct, the engine carries what falls to it."""

    ip: IPAddress
    port: int
    weight: int
    cookie: int = 0  # of the network namespace in which the server is captured
    server: str = ""  # workload key
    uid: str = ""
    flow: Flow | None = None  # of the connections that go there directly: the destination's judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What the kernel may be told about one client and one address that it dials."""

    kind: Kind
    hops: tuple[Hop, ...] = ()  # of DIRECT

    def direct(self, ip: IPAddress, port: int) -> Hop | None:
        """The direct hop to an endpoint."""
        return next((hop for hop in self.hops if hop.cookie and (hop.ip, hop.port) == (ip, port)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to a question. Two equal outcomes need no message to the engine."""

    verdict: abi.Verdict
    flow: Flow
    deps: frozenset[str]
    targets: tuple[Target, ...] = ()
    show_client: bool = False
    sampled: bool = False  # `targets` is a sample of more: ask again after some uses
    status: int = 0
    host: str = ""
    baggage: str = ""
    way: Way | None = None  # None: every connection is the engine's

    def beside_kernel(self) -> tuple[Target, ...]:
        """The targets while the kernel goes by `way`: its share is not the engine's too, or it would count twice.

        What the kernel reaches by itself is tried only when the others failed. If that is all there is, the engine has
        it as well, for what the kernel leaves to it (MPTCP, a full table).
        """
        if self.way is None or all(hop.cookie for hop in self.way.hops):
            return self.targets
        way = self.way
        rest = [target for target in self.targets if not way.direct(target.ip, target.port)]
        mine = [replace(target, weight=0) for target in self.targets if way.direct(target.ip, target.port)]
        return (*(each for each in rest if each.weight), *mine, *(each for each in rest if not each.weight))


def label(question: Question, flow: Flow) -> bytes:
    """What the engine keeps for us with each answer: enough to record and to judge again without our memory."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(question, cls))
    values = [kind, *(_plain(getattr(question, name)) for name in question.__slots__)]
    return json.dumps(values, separators=(",", ":")).encode() + b"\n" + flow.to_label()


def read_label(raw: bytes) -> tuple[Question, Flow]:
    """The way back. Raises ValueError for what nobody can judge.

    The last fields may be missing if they have a default: connections of an agent from before them are judged on.
    What a later agent added is left out: they are judged as this agent would judge them if they came now.
    """
    head, newline, rest = raw.partition(b"\n")
    try:
        kind, *values = json.loads(head)
        cls = _KINDS[kind]
        names = cls.__slots__
        if not newline:
            raise ValueError("its parts do not fit")
        fields = {name: _rich(name, value) for name, value in zip(names, values, strict=False)}
        return cls(**fields), Flow.from_label(rest)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"label {raw[:120]!r} is not of this version: {error}") from error


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int) else str(value)


def _rich(name: str, value: object) -> Any:
    if name in ("to", "source", "remote"):
        return address(str(value))
    if name in ("identity", "peer"):
        return Identity.parse(str(value))
    return value
