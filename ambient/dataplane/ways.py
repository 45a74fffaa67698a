"""What the kernel does by itself, kept true: verdicts put and taken back, and connections ended that may not go on.

The decisions are made elsewhere. A verdict is taken back before anything else happens: then the kernel lists every
connection that it had let through, and those that may not go on are ended; again, until a look finds neither them nor
their sockets, for one that is being made can be missed. What the kernel let in meanwhile it has let in by another
verdict. Of what ended by itself see ended.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from ambient.capture import direct
from ambient.capture.abi import Kind
from ambient.capture.direct import Outcome, Place
from ambient.capture.errors import CaptureError, TableFullError
from ambient.dataplane import direct_endings, ended
from ambient.dataplane.decisions import Decision, Decisions, Revision
from ambient.dataplane.ended import Endings
from ambient.dataplane.pods import LocalPods
from ambient.dataplane.questions import Outbound
from ambient.model.mesh import IPAddress
from ambient.model.world import World
from ambient.observe.records import Open

T = TypeVar("T")
Cuts = dict[int, set[Place] | None]  # by decision: connections to these endpoints are to end; None: all
AGAIN_S = 0.02  # what was ended is looked for again, and what could not be ended tried again
LOOKS = 50  # then it is left, and told of: nothing else may wait for it longer
log = logging.getLogger(__name__)


class Kernel(ended.Kernel, Protocol):
    """capture.direct.Direct, or its stand-in."""

    def put(self, client: int, dialled: Place, verdict: direct.Verdict) -> None: ...
    def delete(self, client: int, dialled: Place) -> bool: ...
    def clear(self) -> None: ...
    def renew(self, seconds: float) -> None: ...
    def flows(self) -> list[direct.Flow]: ...
    def carried(self, flows: Iterable[direct.Flow]) -> dict[direct.Flow, tuple[int, int]]: ...
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
        lease_s: float,
        unfit: str = "",
    ) -> None:
        """`lease_s`: how long verdicts hold without stand_by(). `unfit`: why there are none here; empty: there may be.

        `in_order`: where what blocks is done. `touched(tokens)`: judge again what depends on these.

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
        self.unfit = unfit
        self.left = 0  # connections that were to end, and could not be ended
        self._kernel, self._decisions, self._pods = kernel, decisions, pods
        self._world, self._in_order, self._lease_s = world, in_order, lease_s
        self._standing: dict[int, tuple[int, Place]] = {}  # by number
        self._cuts: Cuts = {}
        self._owed: Cuts = {}  # likewise: they could not be ended
        self._cutting = False
        self._due = asyncio.Event()
        self._settled = asyncio.Condition()
        self._full = False

    # Verdicts

    def put(self, decision: Decision) -> bool:
        """Let the kernel go by a decision that is in force. False: it does not, so the engine has to do it all."""
        if decision.id in self._standing:
            return True
        if self.unfit or decision.way is None or not decision.in_force or not isinstance(decision.question, Outbound):
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

    async def stand_by(self) -> None:
        """To be said again and again: there is somebody who takes verdicts back, so they hold for as long again.

        What could not be ended when it was to be is tried once more.
        """
        await self._in_order(partial(self._kernel.renew, self._lease_s))
        if self._owed:
            owed, self._owed = self._owed, {}
            left, why = await self._in_order(partial(self._end, owed, {}))
            if left or why:
                _add(self._owed, owed)
            else:
                log.warning("the connections past the engine that could not be ended are over")

    def withdraw(self, numbers: Iterable[int]) -> None:
        """The kernel goes by none of these any more, at once."""
        for number in numbers:
            if (stood := self._standing.pop(number, None)) is not None:
                self._kernel.delete(*stood)
                self.ended.withdrawn(number)

    def in_the_way(self, client: str, server: str) -> str:
        """What keeps two pods of this node, by workload key, from the direct path, besides policies; empty: nothing."""
        if self.unfit:
            return f"a direct connection could not be ended here: {self.unfit}"
        if (what := self.ended.aside.get((client, server))) is not None:
            return f"the two go through the engine for some minutes, because a connection {what}"
        return ""

    def __len__(self) -> int:
        return len(self._standing)

    # Connections

    def cut(self, revision: Revision) -> None:
        """End what may not go on; settled() waits for it. Its verdicts were withdrawn before."""
        for decision in revision.cut:
            if decision.way is not None:
                _add(self._cuts, {decision.id: None})
        for decision, hop in revision.cut_hops:
            _add(self._cuts, {decision.id: {(hop.ip, hop.port)}})
        if self._cuts:
            self._due.set()

    async def settled(self) -> None:
        """Return when all that was to be cut is."""
        async with self._settled:
            await self._settled.wait_for(lambda: not self._cuts and not self._cutting)

    async def run(self) -> None:
        """Read what ended, end what must not go on; never returns."""
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                cuts, self._cuts, self._cutting = self._cuts, {}, True
                await self._end_all(cuts)
                self._cutting = False
                async with self._settled:
                    self._settled.notify_all()
        finally:
            self.ended.end()

    async def _end_all(self, cuts: Cuts) -> None:
        seen: dict[direct.Flow, None] = {}
        left: list[direct.Flow] = []
        why = ""
        for _ in range(LOOKS):
            before = why
            left, why = await self._in_order(partial(self._end, cuts, seen))
            if not left and not why:
                return
            if why and not before:
                log.error("trying again to end direct connections: %s", why)
            await asyncio.sleep(AGAIN_S)
        self.left += max(1, len(left))
        _add(self._owed, cuts)
        log.error(
            "%d connections past the engine that are denied now could not be ended, and go on until they can be; no "
            "new ones are let through. Ending the client's pod ends them. %s",
            len(left),
            "; ".join([*(f"{self._client(each)} to {each.destination[0]}" for each in left[:3]), why]),
        )

    def _client(self, flow: direct.Flow) -> str:
        pod = self._pods.of_cookie(flow.client)
        return f"pod {pod.workload}" if pod else str(flow.source[0])

    def _end(self, cuts: Cuts, seen: dict[direct.Flow, None]) -> tuple[list[direct.Flow], str]:
        """Beside the event loop; those that were there at this look, and what went wrong. `seen`: at earlier ones, too.

        The kernel's list says when a client's socket is gone, of a server's only the sockets do.
        """
        listed: list[direct.Flow] = []
        try:
            listed = [flow for flow in self._kernel.flows() if _is_cut(flow, cuts)]
            seen.update(dict.fromkeys(listed))
            found = self._kernel.destroy(seen) if seen else 0
        except (CaptureError, OSError) as error:
            return listed or list(seen), str(error)
        return listed or (list(seen) if found else []), ""

    async def live(self) -> list[Open]:
        """Every connection past the engine that is open now; of the others everything is recorded."""

        def look() -> tuple[list[direct.Flow], dict[direct.Flow, tuple[int, int]]]:
            flows = [each for each in self._kernel.flows() if each.established_ns and not each.sealed]
            return flows, self._kernel.carried(flows)

        flows, carried = await self._in_order(look)
        self.ended.drain()  # the kernel tells of an end before it takes the connection from its list
        offset = direct_endings.realtime_offset()
        return [
            Open(
                self.ended.flow_of(each, Outcome.CLOSED),
                direct_endings.still_open(each, offset, carried.get(each, (0, 0))),
                counted=each in carried,
            )
            for each in flows
        ]

    async def admitted(self) -> frozenset[tuple[Place, Place]]:
        """The two ends of those that this node's kernel vouches for: (client, server).

        Those that ended a moment ago, too: a server may not have closed its end yet.
        """
        flows = await self._in_order(self._kernel.flows)
        return frozenset([*((each.source, each.destination) for each in flows if each.admitted), *self.ended.over])

    async def numbers(self) -> frozenset[int]:
        """The decisions that live connections were let through by; of the others' everything is recorded."""
        flows = await self._in_order(self._kernel.flows)
        self.ended.drain()  # as above
        await self._end_loose(flows)
        return frozenset(each.number for each in flows)

    async def _end_loose(self, flows: list[direct.Flow]) -> None:
        """What nobody let in the kernel seals by itself before its first byte. One that it could not is ended."""
        loose = [each for each in flows if each.kind is Kind.DIRECT and each.established_ns and not each.admitted]
        if loose:
            log.error("ending %d direct connections that could not be sealed (flow_loose in metrics)", len(loose))
            try:
                await self._in_order(partial(self._kernel.destroy, loose))
            except (CaptureError, OSError) as error:  # they are found again
                log.error("trying again to end direct connections: %s", error)  # noqa: TRY400 - the text says it all

    async def void(self) -> None:
        """No verdict of an earlier agent stands any more."""
        await self._in_order(self._kernel.clear)

    async def take_over(self) -> None:
        """What an earlier agent let through is decisions, to be judged; its verdicts are void by now.

        From now on endings are read.
        """
        world = self._world()
        for flow in await self._in_order(self._kernel.flows):
            question, seen, way = direct_endings.inherited(flow, world, self._pods)
            self._decisions.inherit(flow.number, question, seen, way)
        self.ended.begin()


def _add(cuts: Cuts, more: Cuts) -> None:
    for number, places in more.items():
        before = cuts.get(number, set())
        cuts[number] = None if before is None or places is None else before | places


def _is_cut(flow: direct.Flow, cuts: Cuts) -> bool:
    places = cuts.get(flow.number, set())
    return places is None or flow.destination in places
