"""From what the source says to what holds on this node: the order of a change, and what is looked after without one.

Decisions first (fail closed), an earlier agent's included, then pods, then the revision counts as converged. What fails
is named and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable

from ambient.agent.enrolment import Enrolment, InOrder
from ambient.agent.worlds import Worlds
from ambient.capture import host
from ambient.capture.capture import Capture
from ambient.capture.errors import CaptureError
from ambient.dataplane import abi
from ambient.dataplane.engines import Engines
from ambient.dataplane.proxy import Proxy
from ambient.dataplane.ways import Ways
from ambient.dataplane.wire import Message
from ambient.model.errors import SourceError
from ambient.model.mesh import IPAddress
from ambient.model.world import World
from ambient.observe.metrics import Metrics

TICK_S = 5.0  # how often what has no event is looked after: pods not found yet, capture's integrity, old decisions
log = logging.getLogger(__name__)


class Convergence:
    def __init__(
        self,
        worlds: Worlds,
        proxy: Proxy,
        ways: Ways,
        engines: Engines,
        capture: Capture,
        enrolment: Enrolment,
        in_order: InOrder,
        *,
        inherited: list[Message],
        is_leaving: Callable[[], bool],
        metrics: Metrics,
        tell: Callable[[], None],
    ) -> None:
        """`inherited`: the inventory of engines that outlived an agent. `is_leaving()`: nobody is to be captured.

        `tell()`: what is captured may have changed.
        """
        self._worlds, self._proxy, self._ways, self._engines = worlds, proxy, ways, engines
        self._capture, self._enrolment, self._in_order = capture, enrolment, in_order
        self._is_leaving, self._metrics, self._tell = is_leaving, metrics, tell
        self.revision = ""  # of the source, fully applied
        self.done = asyncio.Condition()  # notified when it is
        self.errors: list[str] = []  # of the source
        self.problems: dict[str, str] = {}  # why capture is not whole, by what was looked after
        self._inherited: list[Message] | None = inherited  # None: judged
        self._listening = False
        self._changed = asyncio.Event()
        self._next: World | None = None
        self._asked = self._settled = 0  # convergences that were asked for, and done: see settle()

    async def follow(self, source: AsyncIterable[World | SourceError]) -> None:
        """The source's Worlds, newest wins; its errors are kept beside the last good one."""
        async for item in source:
            if isinstance(item, World):
                self.errors = []
                self._next = item
                self._changed.set()
            else:
                self.errors = list(item.errors)
                log.error("keeping the last good configuration: %s", item)
            self._metrics.config_errors = len(self.errors)
        raise RuntimeError("the source ended")

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._next is None:
                continue  # before the first World nothing is judged, and nobody let go
            asked = self._asked
            if self._inherited is not None:  # by now somebody can decide anew; and it waits for nothing that could fail
                await self._ways.void()
            touched = await self._worlds.take(self._next)
            self._proxy.world = self._worlds.world  # what is denied now must not wait for anything that could fail
            self._proxy.touched(touched)
            self._proxy.waiting.touched(touched)
            known = await self._know_node()
            self._end_inherited()
            if not known or not await self._capture_all():
                continue
            await self._listen()
            self._tell()
            try:
                await self._engines.barrier()
                await self._ways.settled()
            except TimeoutError as error:  # not converged: what was sent waits in its socket, and is asked after again
                log.error("%s", error)  # noqa: TRY400 - the text is the whole story
                self._changed.set()
                continue
            async with self.done:
                self.revision = self._worlds.world.revision
                self._settled = asked
                self.done.notify_all()

    async def settle(self) -> None:
        """Converge, taking in what is true now, and return when that is done."""
        self._asked += 1
        asked = self._asked
        self._changed.set()
        async with self.done:
            await self.done.wait_for(lambda: self._settled >= asked)

    async def first(self) -> None:
        """Return when a World holds."""
        async with self.done:
            await self.done.wait_for(lambda: self.revision != "")

    async def look_again(self) -> None:
        """Readiness may have changed, which is more than convergence: whoever waits for both looks again."""
        async with self.done:
            self.done.notify_all()

    async def tick(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if self._listening:  # else it is another agent's verdicts that stand
                    await self._ways.stand_by()
                for mended in await self._in_order(self._capture.verify):
                    log.warning("capture was tampered with: %s", mended)
                moved = await self._enrolment.moved()
                self.problems.pop("kernel", None)
            except (CaptureError, OSError) as error:
                self._missing("kernel", error)
                moved = False
            if moved or self.problems or self._enrolment.failures or self._is_leaving():
                self._changed.set()
            await self._forget_decisions()
            await self.look_again()

    async def _capture_all(self) -> bool:
        """Make the node's capture what the World says. False when that failed as a whole: the next tick tries again."""
        try:
            await self._enrolment.converge(self._worlds.world, nobody=self._is_leaving())
        except (CaptureError, OSError) as error:
            self._missing("pods", error)
            return False
        self.problems.pop("pods", None)
        return True

    def _missing(self, what: str, error: Exception) -> None:
        if self.problems.get(what) != str(error):
            log.error("%s: capture is not whole: %s", what, error)
        self.problems[what] = str(error)

    async def _know_node(self) -> bool:
        """By its own addresses what comes from the node is judged. False as above."""
        try:
            self._proxy.know_host(await self._in_order(self._addresses))
        except (CaptureError, OSError) as error:
            self._missing("node", error)
            return False
        self.problems.pop("node", None)
        return True

    def _addresses(self) -> frozenset[IPAddress]:
        found = host.addresses()
        self._capture.know_node(found)
        return found

    def _end_inherited(self) -> None:
        """The first World is there: what an earlier agent allowed and would be denied now must not wait, either."""
        if self._inherited is not None:
            inherited, self._inherited = self._inherited, None
            self._proxy.inherit(inherited)

    async def _listen(self) -> None:
        """The pods are known, so that what the kernel let through for an earlier agent has names; then be asked."""
        if self._listening:
            return
        await self._ways.stand_by()
        await self._ways.take_over()
        self._proxy.judge_all()
        self._listening = True
        self._engines.listen()

    async def _forget_decisions(self) -> None:
        asked = self._proxy.decisions.out_of_force()
        try:
            rows = await self._engines.inventory(answers=True)
        except TimeoutError as error:
            log.error("%s", error)  # noqa: TRY400 - as above
            self._changed.set()  # whoever waits for readiness is told when it answers again
            return
        alive = {row.body.answer for row in rows.messages if isinstance(row.body, abi.AnswerRow)}
        if asked:
            self._proxy.decisions.drop_unused(asked, alive | await self._ways.numbers())
