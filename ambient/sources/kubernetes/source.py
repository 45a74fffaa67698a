"""The Kubernetes API followed as one World. Composes: a job for each kind tells the gathering what it comes to."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime

from ambient.model.mesh import MeshConfig
from ambient.model.world import World
from ambient.sources.errors import SourceError
from ambient.sources.kubernetes import kinds
from ambient.sources.kubernetes.client import Client
from ambient.sources.kubernetes.definitions import Served, served
from ambient.sources.kubernetes.follow import Follower, Found, Happened, Item, Listed, Started, Trouble, Watching
from ambient.sources.kubernetes.gathering import Gathering
from ambient.sources.kubernetes.kinds import Resource
from ambient.sources.kubernetes.ledger import Ledger
from ambient.sources.kubernetes.outcomes import Outcomes


def wall_clock() -> datetime:
    return datetime.now(UTC)


async def watch(
    client: Client,
    mesh: MeshConfig,
    *,
    outcomes: Outcomes | None = None,
    now: Callable[[], datetime] = wall_clock,
    chance: Callable[[], float] = random.random,
) -> AsyncGenerator[World | SourceError, None]:
    """The cluster's World, then the next one at each change; a SourceError while the API cannot be followed.

    The first World is complete, and so is each after it, whatever is listed again. After a SourceError the last World
    holds; it is told again when the trouble is over. `outcomes` is told what became of each object. Never ends.
    """
    source = Source(client, mesh, outcomes or Outcomes(), now, chance)
    jobs = source.start()
    try:
        while True:
            for item in await source.gathering.items():
                yield item
            for job in jobs:
                if job.done():
                    raise RuntimeError(f"{job.get_name()} ended") from job.exception()
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


class Source:
    """The jobs, and where they meet."""

    def __init__(
        self,
        client: Client,
        mesh: MeshConfig,
        outcomes: Outcomes,
        now: Callable[[], datetime],
        chance: Callable[[], float],
    ) -> None:
        self._client, self._chance = client, chance
        self._ledgers = {resource: Ledger(resource, outcomes) for resource in (*kinds.CORE, *kinds.POLICIES)}
        self.gathering = Gathering(mesh, (resource.name for resource in self._ledgers), now)

    def start(self) -> list[asyncio.Task[None]]:
        """A job for each kind. None ends by itself."""
        jobs = [asyncio.create_task(self._follow(r, r.versions[0]), name=f"follow {r.name}") for r in kinds.CORE]
        jobs += [asyncio.create_task(self._follow_defined(r), name=f"follow {r.name}") for r in kinds.POLICIES]
        for job in jobs:
            job.add_done_callback(lambda _: self.gathering.wake())
        return jobs

    async def _follow(self, resource: Resource, version: str) -> None:
        async with contextlib.aclosing(Follower(self._client, resource, version, self._chance).items()) as items:
            async for item in items:
                self._take(resource, version, item)

    def _take(self, resource: Resource, version: str, item: Item) -> None:
        ledger = self._ledgers[resource]
        match item:
            case Started():
                ledger.started()
            case Found(objects):
                ledger.found(objects, version)
            case Listed(place):
                self.gathering.add(ledger.listed(), place)
                self.gathering.listed(resource.name)
            case Happened(events):
                self.gathering.add(ledger.happened(events, version), events[-1].version)
            case Watching():
                self.gathering.calm(resource.name)
            case Trouble(text):
                self.gathering.trouble(resource.name, text)

    async def _follow_defined(self, resource: Resource) -> None:
        """Follow a kind while the cluster has it. While it has not, there are no objects of it."""
        definition = f"definition of {resource.name}"
        following: asyncio.Task[None] | None = None
        async with (
            asyncio.TaskGroup() as group,
            contextlib.aclosing(served(self._client, resource, self._chance)) as items,
        ):
            async for item in items:
                match item:
                    case Watching():
                        self.gathering.calm(definition)
                    case Trouble(text):
                        self.gathering.trouble(definition, text)
                    case Served(problem="", version=version):
                        await _ended(following)
                        self.gathering.calm(resource.name)
                        following = self._follow_version(group, resource, version)
                    case Served(problem=problem):
                        self.gathering.trouble(resource.name, problem)

    def _follow_version(self, group: asyncio.TaskGroup, resource: Resource, version: str) -> asyncio.Task[None] | None:
        if version:
            return group.create_task(self._follow(resource, version), name=f"follow {resource.name} {version}")
        self._take(resource, version, Started())
        self._take(resource, version, Listed(""))
        return None


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task:
        task.cancel()
        await asyncio.wait([task])
