"""What the kernel does by itself, kept true: verdicts put and taken back, connections ended, and their records written.

The decisions are made elsewhere. A verdict is taken back before anything else happens: then the kernel lists every
connection that it had let through, and those that may not go on are ended. What the kernel let in meanwhile it has let
in by another verdict.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from ambient.capture import direct
from ambient.capture.abi import Kind
from ambient.capture.direct import Outcome, Place
from ambient.capture.errors import CaptureError, TableFullError
from ambient.dataplane import direct_endings
from ambient.dataplane.decisions import Decision, Decisions, Revision
from ambient.dataplane.pods import LocalPods
from ambient.dataplane.questions import Outbound
from ambient.model.mesh import IPAddress
from ambient.model.world import World
from ambient.observe.records import Ending, Flow

T = TypeVar("T")
BATCH = 64  # records read at once; then they are written, and the loop has its turn
GATHER_S = 0.005  # how long a record may wait for others
ASIDE_S = 300.0  # a pair of pods of which a connection was not admitted goes through the engine so long
AGAIN_S = 0.2  # what could not be ended is tried again
OVER = 4096  # ended connections whose ends are remembered
CACHED = 4096  # flows of records, one for each pair of decision and endpoint
log = logging.getLogger(__name__)


class Kernel(Protocol):
    """capture.direct.Direct, or its stand-in."""

    def put(self, client: int, dialled: Place, verdict: direct.Verdict) -> None: ...
    def delete(self, client: int, dialled: Place) -> bool: ...
    def clear(self) -> None: ...
    def flows(self) -> list[direct.Flow]: ...
    def destroy(self, flows: Iterable[direct.Flow]) -> int: ...
    def fileno(self) -> int: ...
    def read(self, take: Callable[[direct.Ended], None], limit: int) -> int: ...


class Observer(Protocol):
    def ended_directly(self, flow: Flow, ending: Ending) -> None: ...
    def flush(self) -> None: ...


class InOrder(Protocol):
    async def __call__(self, work: Callable[[], T]) -> T: ...


class Ways:
    def __init__(
        self,
        kernel: Kernel,
        decisions: Decisions,
        pods: LocalPods,
        observer: Observer,
        *,
        world: Callable[[], World],
        in_order: InOrder,
        touched: Callable[[Iterable[str]], None],
        answered: Callable[[Decision, IPAddress, int, bool], None],
    ) -> None:
        """`in_order`: where what blocks is done. `touched(tokens)`: judge again what depends on these.

        `answered(decision, ip, port, did)`: an endpoint did, or did not.
        """
        self.aside: set[tuple[str, str]] = set()  # client and server, by workload key
        self._kernel, self._decisions, self._pods, self._observer = kernel, decisions, pods, observer
        self._world, self._in_order, self._touched, self._answered = world, in_order, touched, answered
        self._standing: dict[int, tuple[int, Place]] = {}  # by number
        self._cuts: dict[int, set[Place] | None] = {}  # by number: connections to these endpoints are to end; None: all
        self._cutting = False
        self._due = asyncio.Event()
        self._settled = asyncio.Condition()
        self._known: dict[tuple[int, Place, Outcome], Flow] = {}
        self._over: deque[tuple[Place, Place]] = deque(maxlen=OVER)
        self._full = False
        self._reading = False  # there is a World to name who they were
        self._due_to_read: asyncio.TimerHandle | None = None

    # Verdicts

    def put(self, decision: Decision) -> bool:
        """Let the kernel go by a decision that is in force. False: it does not, so the engine has to do it all."""
        if decision.id in self._standing:
            return True
        if decision.way is None or not decision.in_force or not isinstance(decision.question, Outbound):
            return False
        question = decision.question
        endpoints = tuple(
            direct.Endpoint(hop.ip, hop.port, hop.weight, hop.cookie or None) for hop in decision.way.hops
        )
        place = question.to, question.port
        try:
            self._kernel.put(question.cookie, place, direct.Verdict(decision.id, decision.way.kind, endpoints))
        except TableFullError as error:
            if not self._full:
                log.warning("what goes beyond passes through the engine: %s", error)
            self._full = True
            return False
        except CaptureError as error:
            log.error("this connection passes through the engine: %s", error)  # noqa: TRY400 - all there is to say
            return False
        self._full = False
        self._standing[decision.id] = question.cookie, place
        return True

    def withdraw(self, numbers: Iterable[int]) -> None:
        """The kernel goes by none of these any more, at once."""
        for number in numbers:
            if (stood := self._standing.pop(number, None)) is not None:
                self._kernel.delete(*stood)

    def __len__(self) -> int:
        return len(self._standing)

    # Connections

    def cut(self, revision: Revision) -> None:
        """End what may not go on; settled() waits for it. Its verdicts were withdrawn before."""
        for decision in revision.cut:
            if decision.way is not None:
                self._cuts[decision.id] = None
        for decision, hop in revision.cut_hops:
            if (places := self._cuts.setdefault(decision.id, set())) is not None:
                places.add((hop.ip, hop.port))
        if self._cuts:
            self._due.set()

    async def settled(self) -> None:
        """Return when all that was to be cut is."""
        async with self._settled:
            await self._settled.wait_for(lambda: not self._cuts and not self._cutting)

    async def run(self) -> None:
        """Read what ended, end what must not go on; never returns."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                cuts, self._cuts, self._cutting = self._cuts, {}, True
                try:
                    await self._in_order(partial(self._end, cuts))
                except (CaptureError, OSError) as error:
                    log.error("trying again to end direct connections: %s", error)  # noqa: TRY400
                    self._cuts = cuts | self._cuts
                    loop.call_later(AGAIN_S, self._due.set)
                self._cutting = False
                async with self._settled:
                    self._settled.notify_all()
        finally:
            loop.remove_reader(self._kernel.fileno())
            if self._due_to_read is not None:
                self._due_to_read.cancel()

    def _end(self, cuts: dict[int, set[Place] | None]) -> None:
        """Beside the event loop."""
        doomed = []
        for flow in self._kernel.flows():
            places = cuts.get(flow.number, set())
            if places is None or flow.destination in places:
                doomed.append(flow)
        if doomed:
            self._kernel.destroy(doomed)

    async def live(self) -> list[tuple[Flow, Ending]]:
        """Every connection past the engine that is open now."""
        flows = await self._in_order(self._kernel.flows)
        offset = direct_endings.realtime_offset()
        return [
            (self._flow(each, Outcome.CLOSED), direct_endings.still_open(each, offset, each.started_ns))
            for each in flows
            if each.established_ns and not each.sealed
        ]

    async def admitted(self) -> frozenset[tuple[Place, Place]]:
        """The two ends of those that this node's kernel vouches for: (client, server).

        Those that ended a moment ago, too: a server may not have closed its end yet.
        """
        flows = await self._in_order(self._kernel.flows)
        return frozenset((each.source, each.destination) for each in flows if each.admitted) | frozenset(self._over)

    async def numbers(self) -> frozenset[int]:
        """The decisions that live connections were let through by; of the others' everything is recorded."""
        found = frozenset(each.number for each in await self._in_order(self._kernel.flows))
        self.drain()  # the kernel tells of an end before it takes the connection from its list
        return found

    async def take_over(self) -> None:
        """What an earlier agent left: none of its verdicts stands, and its connections are decisions, to be judged.

        From now on endings are read.
        """
        await self._in_order(self._kernel.clear)
        world = self._world()
        for flow in await self._in_order(self._kernel.flows):
            question, seen, way = direct_endings.inherited(flow, world, self._pods)
            self._decisions.inherit(flow.number, question, seen, way)
        self._reading = True
        self._await_endings()

    # Endings

    def read(self) -> int:
        """Write the records of some that ended; how many."""
        count = self._kernel.read(partial(self._ended, direct_endings.realtime_offset()), BATCH)
        self._observer.flush()
        return count

    def drain(self) -> None:
        """Write all that has ended until now."""
        while self._reading and self.read():
            pass

    def _await_endings(self) -> None:
        asyncio.get_running_loop().add_reader(self._kernel.fileno(), self._gather)

    def _gather(self) -> None:
        """Some have ended. Those of the next moment are read with them: to be woken costs more than to write one."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._kernel.fileno())
        self._due_to_read = loop.call_later(GATHER_S, self._read_on)

    def _read_on(self) -> None:
        count = BATCH
        try:
            count = self.read()
        finally:  # one that could not be written is gone, and the loop tells of it; those behind it are read
            if count < BATCH:
                self._await_endings()
            else:
                self._due_to_read = asyncio.get_running_loop().call_later(0, self._read_on)

    def _ended(self, offset: int, ended: direct.Ended) -> None:
        self._observer.ended_directly(self._flow(ended.flow, ended.outcome), direct_endings.ending(ended, offset))
        if ended.flow.kind is Kind.DIRECT:
            if ended.flow.admitted:
                self._over.append((ended.flow.source, ended.flow.destination))
            self._learn(ended)

    def _flow(self, flow: direct.Flow, outcome: Outcome) -> Flow:
        """One object for all connections that are told alike: see PerFlow."""
        key = flow.number, flow.destination, outcome
        found = self._known.get(key) if outcome is not Outcome.DESTROYED else None  # by whom, and why, differs
        if found is None:
            if len(self._known) >= CACHED:
                self._known.clear()
            decision = self._decisions.get(flow.number)
            if decision is None:
                question, seen, way = direct_endings.inherited(flow, self._world(), self._pods)
                decision = Decision(flow.number, question, seen, way=way)
            found = self._known[key] = direct_endings.flow_of(flow, outcome, decision)
        return found

    def _learn(self, ended: direct.Ended) -> None:
        """What an end says of the way: nobody answers there, or somebody else does."""
        decision = self._decisions.get(ended.flow.number)
        if decision is None:
            return
        ip, port = ended.flow.destination
        if ended.outcome is Outcome.UNADMITTED:
            self._set_aside(decision, ip, port)
        elif ended.flow.established_ns:
            self._answered(decision, ip, port, True)
        elif ended.outcome is Outcome.FAILED and ended.error:
            self._answered(decision, ip, port, False)

    def _set_aside(self, decision: Decision, ip: IPAddress, port: int) -> None:
        """Unless it was only slower than a change: the server's lookup asks whether the verdict still stands."""
        hop = decision.way.direct(ip, port) if decision.way is not None else None
        if hop is None or decision.id not in self._standing or not isinstance(decision.question, Outbound):
            return
        pair = decision.question.client, hop.server
        if pair in self.aside:
            return
        log.warning(
            "a connection of pod %s to pod %s (%s port %d) was answered past the server's socket lookup, and sealed: "
            "does something on this node rewrite addresses between its pods? The two go through the engine for %d s",
            *(*pair, ip, port, ASIDE_S),
        )
        self.aside.add(pair)
        self._touched([f"wl:{pair[0]}"])
        asyncio.get_running_loop().call_later(ASIDE_S, self._try_again, pair)

    def _try_again(self, pair: tuple[str, str]) -> None:
        self.aside.discard(pair)
        self._touched([f"wl:{pair[0]}"])
