"""Connections past the engine: what the agent decided about them, those that live, and the records of those that ended.

Of the kernel side bpf/maps.h (`verdicts`, `flows`, `ended`) tells who writes what. Here bytes become dataclasses; which
connection may go directly is not decided here. Not thread-safe; destroy() blocks for some milliseconds per namespace.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import functools
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ambient.capture import abi, netns, sockdiag
from ambient.capture.abi import Kind
from ambient.capture.errors import CaptureError, LibbpfError, TableFullError
from ambient.capture.libbpf import Map
from ambient.capture.netns import PodNetns
from ambient.capture.ring import Ring
from ambient.model.mesh import IPAddress, address

Place = tuple[IPAddress, int]  # an address and a port


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One choice of a DIRECT verdict."""

    ip: IPAddress  # of the same family as what is dialled: another one is left to the engine
    port: int
    weight: int  # 0: never
    server: int | None  # netns cookie of its pod on this node; None: through the engine


@dataclass(frozen=True, slots=True)
class Verdict:
    """The agent's decision about one client and destination, of `number`.

    No other verdict may have had that number since the machine started, not even for the same destination: what changes
    is put() again under another number.
    """

    number: int  # of 64 bits
    kind: Kind
    endpoints: tuple[Endpoint, ...] = ()  # of DIRECT: 1 to abi.ENDPOINTS


@dataclass(frozen=True, slots=True)
class Flow:
    """A live connection past the engine, as its client sees it. Times: ns of time.CLOCK_MONOTONIC."""

    client: int  # netns cookie
    server: int | None  # likewise; None: PASS
    number: int
    kind: Kind
    source: Place
    destination: Place  # the endpoint
    dialled: Place  # what the application asked for, and sees
    started_ns: int
    established_ns: int | None
    admitted: bool  # the server's socket lookup let it in
    sealed: bool  # it was established without that, which was its end: nothing the application sends leaves the pod


class Outcome(enum.Enum):
    """How a connection past the engine ended."""

    REFUSED = "refused"  # by the verdict: connect() failed, there was no connection
    FAILED = "failed"  # never established: `error` says why
    UNADMITTED = "unadmitted"  # answered by somebody whom this node did not let it in to; no byte of it leaves
    CLOSED = "closed"
    RESET_CLIENT = "reset_client"  # given up by the client's application
    RESET_SERVER = "reset_server"
    DESTROYED = "destroyed"  # by destroy()
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True, eq=False)
class Alike:
    """What connections past the engine that ended alike have in common: one object for nearly all of them."""

    client: int  # as of Flow, to `dialled`
    server: int | None
    number: int
    kind: Kind
    source: IPAddress  # of a REFUSED one nobody's, as `destination`
    destination: Place
    dialled: Place
    admitted: bool
    sealed: bool
    outcome: Outcome
    error: int  # errno that the client's socket had, 0: none


class Ended(NamedTuple):
    """One connection past the engine that is over."""

    alike: Alike
    port: int  # the client's
    started_ns: int
    established_ns: int  # 0: never
    ended_ns: int
    bytes_out: int  # of the application, from client to server: acknowledged
    bytes_in: int  # from server to client: received

    @property
    def flow(self) -> Flow:
        each = self.alike
        return Flow(
            each.client,
            each.server,
            each.number,
            each.kind,
            (each.source, self.port),
            each.destination,
            each.dialled,
            self.started_ns,
            self.established_ns or None,
            each.admitted,
            each.sealed,
        )

    @property
    def outcome(self) -> Outcome:
        return self.alike.outcome

    @property
    def error(self) -> int:
        return self.alike.error


class Direct:
    """The kernel's tables of one node. Capture owns it: `Capture.direct`."""

    def __init__(self, maps: Mapping[str, Map], where: Callable[[int], PodNetns | None]) -> None:
        """`where` opens a pod's network namespace by its cookie; None: it is gone."""
        self._verdicts, self._flows, self._lease = maps["verdicts"], maps["flows"], maps["lease"]
        self._where = where
        self._ring = Ring(maps["ended"].fd, abi.RING_BYTES)

    def put(self, client: int, dialled: Place, verdict: Verdict) -> None:
        """From now on this pod's (netns cookie's) connections there go by this verdict; it replaces an earlier one.

        Raises TableFullError, with nothing changed, when there are abi.MAX_VERDICTS others: without an entry the
        connection goes through the engine.
        """
        row = abi.Verdict(verdict.number, verdict.kind, len(verdict.endpoints))
        if (verdict.kind is Kind.DIRECT) != (0 < len(verdict.endpoints) <= abi.ENDPOINTS):
            raise ValueError(f"a {verdict.kind.name} verdict cannot have {len(verdict.endpoints)} endpoints")
        for at, each in enumerate(verdict.endpoints):
            row.weight += each.weight
            row.endpoint[at] = abi.Endpoint(abi.Ip.of(each.ip), each.port, each.weight, each.server or 0)
        try:
            self._verdicts.put(_key(client, dialled), bytes(row))
        except LibbpfError as error:
            if error.errno == errno.E2BIG:
                raise TableFullError(
                    f"no room for one more verdict, there are {abi.MAX_VERDICTS}: delete what is not used"
                ) from error
            raise

    def renew(self, seconds: float) -> None:
        """Verdicts hold for so long from now, unless this is said again: then connections go through the engine."""
        until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 1e9)
        self._lease.put(bytes(4), max(0, until).to_bytes(8, sys.byteorder))

    def delete(self, client: int, dialled: Place) -> bool:
        """Void at once, for connections being opened too; False: there was none. Live ones stay: see flows()."""
        return self._verdicts.delete(_key(client, dialled))

    def verdicts(self) -> dict[tuple[int, Place], Verdict]:
        """Those in force, by client and what it dials: this agent's, and what an earlier one left."""
        found = {}
        for packed, value in self._verdicts.items():
            key, row = abi.VerdictKey.from_buffer_copy(packed), abi.Verdict.from_buffer_copy(value)
            endpoints = tuple(
                Endpoint(address(bytes(each.ip.bytes)), each.port, each.weight, each.server or None)
                for each in row.endpoint[: row.count]
            )
            found[key.client, _place(key.ip, key.port)] = Verdict(row.number, Kind(row.kind), endpoints)
        return found

    def forget(self, client: int) -> None:
        """Void all of one pod's."""
        for packed, _ in list(self._verdicts.items()):
            if abi.VerdictKey.from_buffer_copy(packed).client == client:
                self._verdicts.delete(packed)

    def clear(self) -> None:
        """Void everybody's."""
        for packed, _ in list(self._verdicts.items()):
            self._verdicts.delete(packed)

    def flows(self) -> list[Flow]:
        """Every live one. What was let in under a verdict that delete() took back before this call is among them."""
        return [_flow(packed, value) for packed, value in self._flows.items()]

    def carried(self, flows: Iterable[Flow]) -> dict[Flow, tuple[int, int]]:
        """Bytes so far, out and in, as Ended counts them. What is not there is over, or its namespace out of reach."""
        found: dict[Flow, tuple[int, int]] = {}
        of_client: dict[int, dict[tuple[Place, Place], Flow]] = defaultdict(dict)
        for flow in flows:
            of_client[flow.client][flow.source, flow.destination] = flow
        for cookie, mine in of_client.items():
            where = self._where(cookie)
            if not where:
                continue
            with contextlib.suppress(CaptureError), contextlib.closing(where):  # it is going: there will be records
                said = netns.run(where.fd, functools.partial(sockdiag.carried, mine))
                found.update((mine[ends], bytes_) for ends, bytes_ in said.items())
        return found

    def destroy(self, flows: Iterable[Flow]) -> int:
        """End these connections, at both of their ends that are on this node; how many there still were.

        Either application gets an error (ECONNABORTED here, ECONNRESET there). What has ended meanwhile is no error.
        Raises CaptureError, after having ended those that it could.
        """
        ends: dict[int, dict[tuple[Place, Place], Flow]] = defaultdict(dict)
        for flow in flows:
            ends[flow.client][flow.source, flow.destination] = flow
            if flow.server:
                ends[flow.server][flow.destination, flow.source] = flow
        ended: set[Flow] = set()
        failures = []
        for cookie, sockets in ends.items():
            where = self._where(cookie)
            if not where:
                continue
            try:
                ended.update(
                    sockets[each] for each in netns.run(where.fd, functools.partial(sockdiag.destroy, sockets))
                )
            except CaptureError as error:
                failures.append(f"in the network namespace {cookie}: {error}")
            finally:
                where.close()
        if failures:
            raise CaptureError(f"cannot end connections {'; '.join(failures)}")
        return len(ended)

    def fileno(self) -> int:
        """Readable, for poll and asyncio, while read() would find something."""
        return self._ring.fileno()

    def read(self, take: Callable[[Ended], None], limit: int = 256) -> int:
        """Give the next connections that ended to `take`; how many. The oldest come first, each once.

        One leaves the kernel only after `take` has returned, so an agent that is killed loses none it did not take.
        """
        return self._ring.read(lambda data: take(read_ended(data)), limit)

    def close(self) -> None:
        self._ring.close()


def _key(client: int, dialled: Place) -> bytes:
    return bytes(abi.VerdictKey(client, abi.Ip.of(dialled[0]), dialled[1]))


def _place(ip: abi.Ip, port: int) -> Place:
    return _address(bytes(ip.bytes)), port


_address = functools.lru_cache(4096)(address)  # the same few hosts speak all day; to make one costs more than the rest


# Structs of abi.py at once: field by field costs four times as much.
_FLOW_KEY = struct.Struct("=16s16s2H")
_FLOW = struct.Struct("=6Q 16sHB5x")
_ENDED = struct.Struct("=24s 5Q 32sH 25s5x")  # those of its fields that tell connections apart; others as they are
_ALIKE = struct.Struct("=3Q 16s16s H 16s2H 3B")
_KINDS = {int(kind): kind for kind in Kind}
_ADMITTED, _SEALED = int(abi.EndedState.ADMITTED), int(abi.EndedState.SEALED)


def _flow(packed: bytes, value: bytes) -> Flow:
    source, destination, source_port, destination_port = _FLOW_KEY.unpack(packed)
    client, server, number, started, established, admitted, dialled, dialled_port, kind = _FLOW.unpack(value)
    return Flow(
        client,
        server or None,
        number,
        _KINDS[kind],
        (_address(source), source_port),
        (_address(destination), destination_port),
        (_address(dialled), dialled_port),
        started,
        established or None,
        admitted == started,
        sealed=False,
    )


def read_ended(data: bytes) -> Ended:
    """An abi.Ended."""
    who, started, established, ended, bytes_out, bytes_in, between, port, how = _ENDED.unpack_from(data)
    alike = _alike(who, between, how, established != 0)
    return Ended(alike, port, started, established, ended, bytes_out, bytes_in)


@functools.lru_cache(512)  # those of the last moments: a decision that is made anew has another number
def _alike(who: bytes, between: bytes, how: bytes, established: bool) -> Alike:
    (
        client, server, number, source, destination, port, dialled, dialled_port, error, kind, state, last,
    ) = _ALIKE.unpack(who + between + how)  # fmt: skip
    sealed = bool(state & _SEALED)
    return Alike(
        client,
        server or None,
        number,
        _KINDS[kind],
        _address(source),
        (_address(destination), port),
        (_address(dialled), dialled_port),
        bool(state & _ADMITTED),
        sealed,
        _outcome(_KINDS[kind], sealed, established, error, last),
        error,
    )


def _outcome(kind: Kind, sealed: bool, established: bool, error: int, last: int) -> Outcome:
    """Errors as net/ipv4/tcp*.c leave them in the socket; without one, who closed first is in the last state."""
    if kind is Kind.REFUSE:
        return Outcome.REFUSED
    if sealed:
        return Outcome.UNADMITTED
    if error == errno.ECONNABORTED:
        return Outcome.DESTROYED
    if not established:
        return Outcome.FAILED
    if error in (errno.ECONNRESET, errno.EPIPE):
        return Outcome.RESET_SERVER
    if error:
        return Outcome.TIMED_OUT
    return Outcome.RESET_CLIENT if last in (_ESTABLISHED, _CLOSE_WAIT) else Outcome.CLOSED


_ESTABLISHED, _CLOSE_WAIT = 1, 8  # BPF_TCP_*, linux/bpf.h
