"""Two pods with one address: their owners hear of it when it lasts, and only then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from ambient.control.contests import LASTING_S, LOOK_S, Contests
from ambient.control.events import Events
from ambient.model.mesh import Workload
from ambient.model.world import World
from tests.identity import virtual
from tests.model.builders import a_pod, a_service, a_world

from .apiserver import ApiServer

CALM = a_world(a_pod("shop/web", "10.1.0.1"), a_pod("shop/api", "10.1.0.2"))
TWINS = a_world(a_pod("shop/web", "10.1.0.1"), a_pod("bank/api", "10.1.0.1", uid="u"))


class Watched:
    def __init__(self) -> None:
        self.world = CALM
        self.server = ApiServer()
        self.events = Events(self.server.api(), "control-1", now=virtual.now)
        self.contests = Contests(self.events, lambda: self.world)

    def told(self) -> list[dict[str, Any]]:
        return [obj for (plural, _, _), obj in self.server.objects.items() if plural == "events"]


def with_worlds(test: Callable[[Watched], Awaitable[None]]) -> None:
    async def main() -> None:
        watched = Watched()
        jobs = [watched.events.run(), watched.contests.run()]
        tasks = [asyncio.create_task(job, name="under test") for job in jobs]
        await test(watched)
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    virtual.run(main())


def test_a_contest_that_lasts_is_told_once_to_each_pods_owner() -> None:
    async def test(watched: Watched) -> None:
        watched.world = TWINS
        await asyncio.sleep(LASTING_S + 3 * LOOK_S)
        told = {event["regarding"]["name"]: event for event in watched.told()}
        assert told.keys() == {"web", "api"}
        assert (told["api"]["reason"], told["api"]["regarding"]["uid"]) == ("AddressContested", "u")
        assert "expected an address of its own, found 10.1.0.1, which Pod shop/web has too" in told["api"]["note"]
        assert "nobody's" in told["api"]["note"]
        assert len(watched.told()) == 2

    with_worlds(test)


def test_a_contest_that_passes_is_not_told_nor_is_one_that_begins_anew() -> None:
    async def test(watched: Watched) -> None:
        for _ in range(3):
            watched.world = TWINS
            await asyncio.sleep(LASTING_S - LOOK_S)
            watched.world = CALM
            await asyncio.sleep(LOOK_S)
        assert watched.told() == []

    with_worlds(test)


def test_a_pod_that_claims_a_services_address_is_told_and_the_service_is_not() -> None:
    async def test(watched: Watched) -> None:
        watched.world = a_world(a_pod("shop/web", "10.96.0.1"), a_service("shop/web", "10.96.0.1"))
        await asyncio.sleep(LASTING_S + LOOK_S)
        (event,) = watched.told()
        assert event["regarding"]["kind"] == "Pod"
        assert "which Service shop/web has too" in event["note"]

    with_worlds(test)


def test_a_pod_on_a_node_that_nobody_knows_is_no_contest() -> None:
    lost = World.build(workloads=[Workload(namespace="shop", name="web", uid="u", node="gone")])
    assert lost.problems()

    async def test(watched: Watched) -> None:
        watched.world = lost
        await asyncio.sleep(LASTING_S + LOOK_S)
        assert watched.told() == []

    with_worlds(test)
