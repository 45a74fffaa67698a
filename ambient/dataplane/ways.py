"""What the kernel does by itself, kept true: verdicts put and taken back, and connections ended that may not go on.

The decisions are made elsewhere. A verdict is taken back before anything else happens: then the kernel lists every
connection that it had let through, and those that may not go on are ended. What the kernel let in meanwhile it has let
in by another verdict. Of what ended by itself see ended.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from ambient.capture import direct
from ambient.capture.direct import Outcome, Place
from ambient.capture.errors import CaptureError, TableFullError
from ambient.dataplane import direct_endings, ended
from ambient.dataplane.decisions import Decision, Decisions, Revision
from ambient.dataplane.ended import Endings
from ambient.dataplane.pods import LocalPods
from ambient.dataplane.questions import Outbound
from ambient.model.mesh import IPAddress
from ambient.model.world import World
from ambient.observe.records import Ending, Flow

T = TypeVar("T")
AGAIN_S = 0.2  # what could not be ended is tried again
log = logging.getLogger(__name__)


class Kernel(ended.Kernel, Protocol):
    """capture.direct.Direct, or its stand-in."""

    def put(self, client: int, dialled: Place, verdict: direct.Verdict) -> None: ...
    def delete(self, client: int, dialled: Place) -> bool: ...
    def flows(self) -> list[direct.Flow]: ...
    def destroy(self, flows: Iterable[direct.Flow]) -> int: ...


class InOrder(Protocol):
    async def __call__(self, work: Callable[[], T]) -> T: ...


class Ways:
    def __init__(
        self,
        kernel: Kernel,
        decisions: Decisions,
        pods: LocalPods,
        observer: ended.Observer,
        *,
        world: Callable[[], World],
        in_order: InOrder,
        touched: Callable[[Iterable[str]], None],
        answered: Callable[[Decision, IPAddress, int, bool], None],
    ) -> None:
        """`in_order`: where what blocks is done. `touched(tokens)`: judge again what depends on these.

        `answered(decision, ip, port, did)`: an endpoint did, or did not.
        """
        self.ended = Endings(
            kernel,
            decisions,
            pods,
            observer,
            world=world,
            stands=lambda number: number in self._standing,
            touched=touched,
            answered=answered,
        )
        self._kernel, self._decisions, self._pods = kernel, decisions, pods
        self._world, self._in_order = world, in_order
        self._standing: dict[int, tuple[int, Place]] = {}  # by number
        self._cuts: dict[int, set[Place] | None] = {}  # by number: connections to these endpoints are to end; None: all
        self._cutting = False
        self._due = asyncio.Event()
        self._settled = asyncio.Condition()
        self._full = False

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
                self.ended.withdrawn(number)

    def __len__(self) -> int:
        return len(self._standing)

    # Connections

    def cut(self, revision: Revision) -> None:
        """End what may not go on; settled() waits for it. Its verdicts were withdrawn before."""
        for decision in revision.cut:
            if decision.way is not None:
                self._to_end(decision.id, None)
        for decision, hop in revision.cut_hops:
            self._to_end(decision.id, {(hop.ip, hop.port)})
        if self._cuts:
            self._due.set()

    def _to_end(self, number: int, places: set[Place] | None) -> None:
        before = self._cuts.get(number, set())
        self._cuts[number] = None if before is None or places is None else before | places

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
                    for number, places in cuts.items():
                        self._to_end(number, places)
                    loop.call_later(AGAIN_S, self._due.set)
                self._cutting = False
                async with self._settled:
                    self._settled.notify_all()
        finally:
            self.ended.end()

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
        """Every connection past the engine that is open now; of the others everything is recorded."""
        flows = await self._in_order(self._kernel.flows)
        self.ended.drain()  # the kernel tells of an end before it takes the connection from its list
        offset = direct_endings.realtime_offset()
        return [
            (self.ended.flow_of(each, Outcome.CLOSED), direct_endings.still_open(each, offset, each.started_ns))
            for each in flows
            if each.established_ns and not each.sealed
        ]

    async def admitted(self) -> frozenset[tuple[Place, Place]]:
        """The two ends of those that this node's kernel vouches for: (client, server).

        Those that ended a moment ago, too: a server may not have closed its end yet.
        """
        flows = await self._in_order(self._kernel.flows)
        return frozenset([*((each.source, each.destination) for each in flows if each.admitted), *self.ended.over])

    async def numbers(self) -> frozenset[int]:
        """The decisions that live connections were let through by; of the others' everything is recorded."""
        found = frozenset(each.number for each in await self._in_order(self._kernel.flows))
        self.ended.drain()  # as above
        return found

    async def take_over(self) -> None:
        """What an earlier agent let through is decisions, to be judged; its verdicts went when capture was opened.

        From now on endings are read.
        """
        world = self._world()
        for flow in await self._in_order(self._kernel.flows):
            question, seen, way = direct_endings.inherited(flow, world, self._pods)
            self._decisions.inherit(flow.number, question, seen, way)
        self.ended.begin()
