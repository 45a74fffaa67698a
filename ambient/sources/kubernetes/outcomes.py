"""What became of each object in the API: accepted, or what is wrong with it. For who writes statuses and Events.

Only keeps and tells; writes nothing to the API.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ambient.sources.manifests import Ref
from ambient.sources.reading import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The verdict on one generation of one object."""

    ref: Ref
    api_version: str
    namespace: str  # empty: of no namespace
    name: str
    uid: str
    generation: int
    version: str = field(default="", compare=False)  # resourceVersion, of what was read
    conditions: Sequence[Mapping[str, Any]] = ()  # of a policy's status, as they were read
    problems: tuple[Problem, ...] = ()  # none: accepted
    instead: str = ""  # with problems: what holds until they are mended


class Outcomes:
    """The newest outcome of every policy, good or bad, and of every other object that has problems."""

    def __init__(self) -> None:
        self._all: dict[Ref, Outcome] = {}
        self._followers: list[tuple[dict[Ref, Outcome], asyncio.Event]] = []

    @property
    def all(self) -> Mapping[Ref, Outcome]:
        return self._all

    def put(self, ref: Ref, outcome: Outcome | None) -> None:
        """Replace what is known of an object; None: it is gone, or fine and nobody's concern."""
        if self._all.get(ref) == outcome:
            return
        if outcome is None:
            del self._all[ref]
        else:
            self._all[ref] = outcome
        for pending, news in self._followers:
            if outcome is None:
                pending.pop(ref, None)
            else:
                pending[ref] = outcome
                news.set()

    async def follow(self) -> AsyncGenerator[list[Outcome], None]:
        """All there are, then those that are new or other than before; of one object only the newest. Never ends."""
        pending, news = dict(self._all), asyncio.Event()
        follower = (pending, news)
        self._followers.append(follower)
        try:
            while True:
                news.clear()
                if pending:
                    batch = list(pending.values())
                    pending.clear()
                    yield batch
                else:
                    await news.wait()
        finally:
            self._followers.remove(follower)
