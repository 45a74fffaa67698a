"""What the kinds tell, gathered into one World after the other, and trouble that lasts. No requests are made here.

A burst becomes one change. Until every kind was listed there is no World. From then on each is complete, and the last
one stays while there is trouble.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from ambient.model.mesh import MeshConfig
from ambient.model.world import World, diff
from ambient.sources.errors import SourceError
from ambient.sources.inventory import Inventory
from ambient.sources.kubernetes.ledger import Changes
from ambient.sources.kubernetes.wire import goes_back

STEP_S = 0.005  # silence that ends a burst
BURST_S = 0.020  # but nothing waits longer than this for what comes after it
PATIENCE_S = 5.0  # an API server that restarts is not worth a word, once there is a World
BULK = 500  # changes: more of them are worked in beside the event loop


@dataclass(frozen=True, slots=True)
class Ongoing:
    since: datetime
    began: float  # the same, on the loop's clock
    text: str


class Gathering:
    def __init__(self, mesh: MeshConfig, kinds: Iterable[str], now: Callable[[], datetime]) -> None:
        self._unlisted = set(kinds)
        self._now = now
        self._inventory = Inventory(World(mesh=mesh), announced=True)
        self._worlds = 0  # told so far
        self._version = ""  # the newest resourceVersion that was heard of
        self._pending: Changes = {}
        self._additions = 0
        self._troubles: dict[str, Ongoing] = {}
        self._told: SourceError | None = None  # and no World since
        self._news = asyncio.Event()

    # Told by the jobs

    def listed(self, kind: str) -> None:
        self._unlisted.discard(kind)
        self.wake()

    def add(self, changes: Changes, version: str) -> None:
        if not self._version or goes_back(version, self._version):
            self._version = version
        if changes:
            self._pending |= changes
            self.wake()

    def trouble(self, about: str, text: str) -> None:
        known = self._troubles.get(about)
        since, began = (known.since, known.began) if known else (self._now(), asyncio.get_running_loop().time())
        self._troubles[about] = Ongoing(since, began, text)
        self.wake()

    def calm(self, about: str) -> None:
        if self._troubles.pop(about, None):
            self.wake()

    def wake(self) -> None:
        self._additions += 1
        self._news.set()

    # Asked by who follows

    async def items(self) -> list[World | SourceError]:
        """Waits for news, and says what they come to: maybe nothing."""
        await self._news.wait()
        await self._burst()
        self._news.clear()
        found: list[World | SourceError] = []
        if not self._unlisted:
            over = self._told is not None and not self._lasting()
            if await self._work_in() or over or not self._worlds:
                self._worlds += 1
                self._told = None
                found.append(self._inventory.world)
        complaint = self._complaint()
        if complaint and (self._told is None or complaint.errors != self._told.errors):
            self._told = complaint
            found.append(complaint)
        return found

    async def _burst(self) -> None:
        loop = asyncio.get_running_loop()
        began, before = loop.time(), -1
        while before != self._additions and loop.time() - began < BURST_S:
            before = self._additions
            await asyncio.sleep(STEP_S)

    async def _work_in(self) -> bool:
        """Whether the World is another one now."""
        if not (pending := self._pending):
            return False
        self._pending = {}
        upserts = [(ref, stands) for ref, stands in pending.items() if stands is not None]
        removals = [ref for ref, stands in pending.items() if stands is None]
        revision = f"{self._version}-{self._worlds}"
        if len(pending) > BULK:
            after = await asyncio.to_thread(self._inventory.apply, upserts, removals, revision=revision)
        else:
            after = self._inventory.apply(upserts, removals, revision=revision)
        if not diff(self._inventory.world, after.world):
            return False
        self._inventory = after
        return True

    def _lasting(self) -> dict[str, Ongoing]:
        """Before the first World every trouble is worth telling; later what has lasted."""
        time, patience = asyncio.get_running_loop().time(), PATIENCE_S if self._worlds else 0.0
        return {about: trouble for about, trouble in self._troubles.items() if time - trouble.began >= patience}

    def _complaint(self) -> SourceError | None:
        troubles = self._lasting()
        by_text: dict[str, list[str]] = {}
        for about, trouble in sorted(troubles.items()):
            by_text.setdefault(trouble.text, []).append(about)
        stays = "the last configuration stays" if self._worlds else "there is no configuration yet"
        errors = []
        for text, abouts in by_text.items():
            since = min(troubles[about].since for about in abouts)
            errors.append(f"{', '.join(abouts)}: {text} (since {since:%Y-%m-%dT%H:%M:%SZ}; {stays})")
        return SourceError(errors) if errors else None
