"""The kernel's ring read: a record of every connection past the engine that ended, and what its end says of the way.

An endpoint that did not answer is told; a pair of pods of which a connection was answered by a stranger is set aside.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from ambient.capture import direct
from ambient.capture.abi import Kind
from ambient.capture.direct import Alike, Ended, Outcome, Place
from ambient.dataplane import direct_endings
from ambient.dataplane.decisions import Decision, Decisions
from ambient.dataplane.pods import LocalPods
from ambient.dataplane.questions import Outbound
from ambient.model.mesh import IPAddress
from ambient.model.world import World
from ambient.observe.records import Ending, Flow

BATCH = 64  # records read at once; then they are written, and the loop has its turn
GATHER_S = 0.010  # how long a record may wait for others
ASIDE_S = 300.0  # a pair of pods of which a connection was not admitted goes through the engine so long
OVER = 1024  # ended connections whose ends are remembered: those of the last moment, on a busy node
LOST_NS = 1_000_000_000  # after which a SYN that is not answered is sent again
_ANSWERED_BY_ANOTHER = (
    "was answered past the server's socket lookup, and sealed: does something on this node rewrite addresses between "
    "its pods?"
)
_LOST = "did not arrive: does a NetworkPolicy let only port 15008 through?"
log = logging.getLogger(__name__)


class Kernel(Protocol):
    def fileno(self) -> int: ...
    def read(self, take: Callable[[Ended], None], limit: int) -> int: ...


class Observer(Protocol):
    def ended_directly(self, flow: Flow, *endings: Ending) -> None: ...
    def flush(self) -> None: ...


class Endings:
    def __init__(
        self,
        kernel: Kernel,
        decisions: Decisions,
        pods: LocalPods,
        observer: Observer,
        *,
        world: Callable[[], World],
        stands: Callable[[int], bool],
        touched: Callable[[Iterable[str]], None],
        answered: Callable[[Decision, IPAddress, int, bool], None],
    ) -> None:
        """`stands(number)`: the kernel goes by this decision now. The rest as of Ways."""
        self.aside: dict[tuple[str, str], str] = {}  # client and server, by workload key: what a connection of them did
        self.over: deque[tuple[Place, Place]] = deque(maxlen=OVER)  # of those that ended last
        self._kernel, self._decisions, self._pods, self._observer = kernel, decisions, pods, observer
        self._world, self._stands, self._touched, self._answered = world, stands, touched, answered
        self._known: dict[int, dict[tuple[Place, Outcome], Flow]] = {}  # by number of what stands, and goes with it
        self._reading = False  # there is a World to name who they were
        self._due: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._reading = True
        self._await()

    def end(self) -> None:
        """Read no more by itself; drain() still does."""
        asyncio.get_running_loop().remove_reader(self._kernel.fileno())
        if self._due is not None:
            self._due.cancel()

    def read(self) -> int:
        """Write the records of some that ended, of those that ended alike together; how many.

        What cannot be written keeps none of the others from it; why not comes out of here.
        """
        alike: dict[Alike, list[Ended]] = {}
        try:
            return self._kernel.read(lambda each: alike.setdefault(each.alike, []).append(each), BATCH)
        finally:
            self._write(alike)

    def drain(self) -> None:
        """Write all that has ended until now."""
        while self._reading and self.read() == BATCH:
            pass

    def _await(self) -> None:
        asyncio.get_running_loop().add_reader(self._kernel.fileno(), self._gather)

    def _gather(self) -> None:
        """Some have ended. Those of the next moment are read with them: to be woken costs more than to write one."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._kernel.fileno())
        self._due = loop.call_later(GATHER_S, self._read_on)

    def _read_on(self) -> None:
        count = BATCH
        try:
            count = self.read()
        finally:  # of what could not be written the loop tells; those behind it are read
            if count < BATCH:
                self._await()
            else:
                self._due = asyncio.get_running_loop().call_later(0, self._read_on)

    def _write(self, alike: Mapping[Alike, Sequence[Ended]]) -> None:
        offset = direct_endings.realtime_offset()
        failures: list[Exception] = []
        for what, them in alike.items():
            try:
                self._ended(what, them, offset)
            except Exception as error:  # noqa: BLE001 - all of them are raised below
                failures.append(error)
        self._observer.flush()
        if failures:
            raise ExceptionGroup("records were not written", failures)

    def _ended(self, alike: Alike, them: Sequence[Ended], offset: int) -> None:
        self._observer.ended_directly(
            self.flow_of(them[0].flow, alike.outcome), *direct_endings.endings(alike, them, offset)
        )
        if alike.kind is Kind.DIRECT:
            if alike.admitted:
                self.over.extend(((alike.source, each.port), alike.destination) for each in them)
            self._learn(alike, them)

    def flow_of(self, flow: direct.Flow, outcome: Outcome) -> Flow:
        """One object for all connections that are told alike: see PerFlow."""
        if outcome is Outcome.DESTROYED or not self._stands(flow.number):  # by whom, and why, differs; or it is rare
            return self._told(flow, outcome)
        alike = self._known.setdefault(flow.number, {})
        key = flow.destination, outcome
        if (found := alike.get(key)) is None:
            found = alike[key] = self._told(flow, outcome)
        return found

    def withdrawn(self, number: int) -> None:
        """The kernel goes by this one no more: nothing of it is kept, pods come and go."""
        self._known.pop(number, None)

    def _told(self, flow: direct.Flow, outcome: Outcome) -> Flow:
        decision = self._decisions.get(flow.number)
        if decision is None or not _knows(decision, flow):
            question, seen, way = direct_endings.inherited(flow, self._world(), self._pods)
            known = decision or Decision(flow.number, question, seen)
            decision = replace(known, flow=seen, way=way)
        return direct_endings.flow_of(flow, outcome, decision)

    def _learn(self, alike: Alike, them: Sequence[Ended]) -> None:
        """What ends say of the way: nobody answers there, or somebody else does."""
        decision = self._decisions.get(alike.number)
        if decision is None:
            return
        ip, port = alike.destination
        if alike.outcome is Outcome.UNADMITTED:
            self._set_aside(decision, ip, port, _ANSWERED_BY_ANOTHER)
        elif alike.outcome is Outcome.FAILED and not alike.admitted and any(map(_tried, them)):
            self._set_aside(decision, ip, port, _LOST)
        elif them[0].established_ns:
            self._answered(decision, ip, port, True)
        elif alike.outcome is Outcome.FAILED and alike.error and not _deaf(alike):
            for _ in them:
                self._answered(decision, ip, port, False)

    def _set_aside(self, decision: Decision, ip: IPAddress, port: int, what: str) -> None:
        """Unless it was only slower than a change: the server's lookup asks whether the verdict still stands."""
        hop = decision.way.direct(ip, port) if decision.way is not None else None
        if hop is None or not self._stands(decision.id) or not isinstance(decision.question, Outbound):
            return
        pair = decision.question.client, hop.server
        if pair in self.aside:
            return
        log.warning(
            "a connection of pod %s to pod %s (%s port %d) %s The two go through the engine for %d s",
            *(*pair, ip, port, what, ASIDE_S),
        )
        self.aside[pair] = what
        self._touched([f"wl:{pair[0]}"])
        asyncio.get_running_loop().call_later(ASIDE_S, self._try_again, pair)

    def _try_again(self, pair: tuple[str, str]) -> None:
        self.aside.pop(pair, None)
        self._touched([f"wl:{pair[0]}"])


def _tried(ended: Ended) -> bool:
    """Long enough for a second SYN."""
    return ended.error != 0 or ended.ended_ns - ended.started_ns >= LOST_NS


def _deaf(alike: Alike) -> bool:
    """The server's socket lookup had it, and the client heard nothing: as any client may see to (SO_ATTACH_FILTER).

    By that no pod sets an endpoint aside for the others of its node.
    """
    return alike.admitted and alike.error != errno.ECONNREFUSED


def _knows(decision: Decision, flow: direct.Flow) -> bool:
    """An earlier agent's may be known from the engine alone, which says nothing of whom the kernel reaches."""
    return flow.kind is not Kind.DIRECT or (
        decision.way is not None and decision.way.direct(*flow.destination) is not None
    )
