"""Metrics and readiness as pages, and what a scrape must fetch first: live connections, uncaptured datagrams."""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from ambient.capture.errors import CaptureError
from ambient.dataplane import abi, endings
from ambient.observe.http import Page
from ambient.observe.metrics import CONTENT_TYPE, Gauges, Live
from ambient.observe.records import Open

if TYPE_CHECKING:
    from ambient.agent.root import Agent


class Scrape:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._live: list[Live] = []
        self._datagrams: dict[tuple[str, str], int] = {}
        agent.metrics.gauges = Gauges(
            live=lambda: self._live,
            verdicts=agent.capture.counters,
            certificates=lambda: {
                str(pod.identity): svid.not_after for pod in agent.pods if (svid := agent.store.get(pod.identity))
            },
            uncaptured=lambda: self._datagrams,
            pods=lambda: {"captured": len(list(agent.pods)), "waiting": len(agent.enrolment.failures)},
            ready=lambda: not agent.not_ready(),
            records_dropped=lambda: agent.journal.dropped,
            kernel_verdicts=lambda: len(agent.ways),
            pairs_aside=lambda: len(agent.ways.ended.aside),
            not_ended=lambda: agent.ways.left,
        )

    async def text(self) -> str:
        """The metrics, live connections included."""
        self._live = [
            Live(side, ending.sent, ending.received)
            for flow, ending, _ in await self.connections()
            for side in self._agent.telemetry.both(flow)
        ]
        self._datagrams = await self._agent.in_order(self._count_datagrams)
        return await self._agent.metrics.text()

    async def connections(self) -> list[Open]:
        """Every connection that is open now, with its bytes so far."""
        agent = self._agent
        inventory = await agent.engines.inventory(conns=True)
        found = []
        for link, row in inventory.rows:
            if isinstance(row.body, abi.Conn):
                decision = agent.proxy.decisions.get(row.body.answer)
                flow = endings.flow_of(row.body, decision.flow if decision else None, None, agent.world, agent.pods)
                found.append(Open(flow, endings.ending(row.body, "", link.engine)))
        return found + await agent.ways.live()

    async def metrics_page(self) -> Page:
        return Page(await self.text(), content_type=CONTENT_TYPE)

    async def ready_page(self) -> Page:
        waits = self._agent.not_ready()
        if waits:
            text = "not ready, waiting for:\n" + "".join(f"  {each}\n" for each in waits)
            return Page(text, HTTPStatus.INTERNAL_SERVER_ERROR)
        return Page("ready\n")

    async def live_page(self) -> Page:
        """That it is there says that the event loop turns. Whatever is waited for, a restart would not bring it."""
        return Page("alive\n")

    def _count_datagrams(self) -> dict[tuple[str, str], int]:
        found = {}
        for pod in self._agent.pods:
            with contextlib.suppress(CaptureError):  # it is about to be captured, or has just gone
                for protocol, count in self._agent.capture.uncaptured(pod.cookie).items():
                    found[pod.workload, protocol] = count
        return found
