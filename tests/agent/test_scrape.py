"""A scrape in the midst of things: a pod may be known and not captured, not yet or no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ambient.agent.scrape import Scrape
from ambient.capture.errors import CaptureError
from ambient.observe.metrics import Metrics


def test_a_pod_that_is_not_captured_yet_costs_no_other_its_figures() -> None:
    def uncaptured(cookie: int) -> dict[str, int]:
        if cookie == 1:
            raise CaptureError("no pod with netns cookie 1 was enrolled by this agent")
        return {"udp": 7}

    async def in_order(work: Callable[[], Any]) -> Any:
        return work()

    async def inventory(**_: bool) -> Any:
        return SimpleNamespace(rows=[])

    class Ways(list[Any]):
        ended, left = SimpleNamespace(aside=()), 0

        async def live(self) -> list[Any]:
            return []

    pods = [SimpleNamespace(cookie=each, workload=f"shop/p{each}", identity=f"id-{each}") for each in (1, 2)]
    agent: Any = SimpleNamespace(
        metrics=Metrics(),
        capture=SimpleNamespace(counters=dict, uncaptured=uncaptured),
        pods=pods,
        store=SimpleNamespace(get=lambda _: None),
        enrolment=SimpleNamespace(failures={}),
        journal=SimpleNamespace(dropped=0),
        engines=SimpleNamespace(inventory=inventory),
        ways=Ways(),
        in_order=in_order,
        not_ready=list,
    )
    text = asyncio.run(Scrape(agent).text())
    assert 'ambient_uncaptured_datagrams_total{pod="shop/p2",protocol="udp"} 7.0' in text
    assert "shop/p1" not in text
