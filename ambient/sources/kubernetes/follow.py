"""One kind, followed: list, then watch from there, and list again when the server no longer knows where we were.

What is told is in order and never skips a change. Nothing is kept here but the place to go on from.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from ambient.sources.kubernetes.backoff import Backoff
from ambient.sources.kubernetes.client import ApiError, Client
from ambient.sources.kubernetes.kinds import Resource
from ambient.sources.kubernetes.wire import Change, Decoder, Event, Lines, Malformed, Raw, goes_back

PAGE = 500  # objects asked for at a time: some 4 MB of pods, and no long pause for anybody
PORTION = 100  # objects handed on at a time: 10 ms of reading, then others have their turn
WATCH_S = 300  # the server ends a watch after so long, which spreads watches over its replicas
SPREAD_S = 60  # but not all at once
SILENCE_S = 120.0  # a bookmark comes every minute: a server that hangs still acknowledges what TCP sends
LIVED_S = 1.0  # a watch that ended sooner without a word is a failure, or it would be asked for in a tight loop
GONE = 410
PATIENT = (0, 429, 503)  # no answer, too many requests, starting: the place to go on from is as good as before


@dataclass(frozen=True, slots=True)
class Started:
    """A list begins: what was found of an earlier one that did not end is void."""


@dataclass(frozen=True, slots=True)
class Found:
    objects: list[Raw]


@dataclass(frozen=True, slots=True)
class Listed:
    """The list is complete: what was known and not found is gone."""

    version: str


@dataclass(frozen=True, slots=True)
class Watching:
    """The server answers: trouble is over."""


@dataclass(frozen=True, slots=True)
class Happened:
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something failed and is tried again."""

    text: str


Item = Started | Found | Listed | Watching | Happened | Trouble


class Follower:
    def __init__(
        self, client: Client, resource: Resource, version: str, chance: Callable[[], float] = random.random
    ) -> None:
        self._client = client
        self._path = resource.path(version)
        self._fields = {"fieldSelector": resource.fields} if resource.fields else {}
        self._decoder = Decoder(resource.shape)
        self._chance = chance
        self._backoff = Backoff(chance)
        self._lost = Backoff(chance)  # for a place that the server forgot: it may be back from a long absence
        self._place = ""  # the resourceVersion to go on from; empty: list
        self._paged = True

    async def items(self) -> AsyncGenerator[Item, None]:
        """Never ends by itself; trouble is an item, and the next try follows it."""
        while True:
            try:
                part = self._watch() if self._place else self._list()
                async with contextlib.aclosing(part):
                    async for item in part:
                        yield item
            except (ApiError, Malformed) as error:
                yield Trouble(str(error))
                await asyncio.sleep(self._failed(error))

    def _failed(self, error: ApiError | Malformed) -> float:
        """Decide where to go on after a failure; how long to wait before."""
        if isinstance(error, Malformed):
            self._place = ""
            return self._backoff.failed()
        if error.status == GONE:
            # a list that lost its place half way is asked for in one piece, which cannot lose it
            self._paged = self._paged and self._place != ""
            self._place = ""
            return self._lost.failed()
        if error.status not in PATIENT:
            self._place = ""
        return self._backoff.failed(error.retry_after)

    async def _list(self) -> AsyncGenerator[Item, None]:
        """Ends when the list is complete."""
        yield Started()
        params = self._fields | ({"limit": str(PAGE)} if self._paged else {})
        more = ""
        while True:
            page = self._decoder.page(
                await self._client.read(self._path, params | ({"continue": more} if more else {}))
            )
            for start in range(0, len(page.objects), PORTION):
                yield Found(page.objects[start : start + PORTION])
                await asyncio.sleep(0)
            more = page.more
            if not more:
                break
        self._place, self._paged = page.version, True
        yield Listed(page.version)

    async def _watch(self) -> AsyncGenerator[Item, None]:
        """Ends when the server ended the watch, as it does now and then."""
        seconds = WATCH_S + int(SPREAD_S * self._chance())
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._place,
            "timeoutSeconds": str(seconds),
        }
        began, heard = asyncio.get_running_loop().time(), False
        async with self._client.stream(self._path, self._fields | params, silence_s=SILENCE_S) as pieces:
            yield Watching()
            lines = Lines()
            async for piece in pieces:
                events = [self._decoder.event(line) for line in lines.feed(piece)]
                if not events:
                    continue
                heard = True
                self._backoff.worked()
                self._lost.worked()
                place = self._in_order(events)
                if happened := [event for event in events if event.change is not Change.BOOKMARK]:
                    yield Happened(happened)
                self._place = place
        if not heard and asyncio.get_running_loop().time() - began < LIVED_S:
            raise ApiError("the watch ended at once, without a word")

    def _in_order(self, events: list[Event]) -> str:
        """The place after the events. Raises Malformed if one is older than what came before it.

        Who can say what else is missing on such a stream? A new list settles it.
        """
        place = self._place
        for event in events:
            if goes_back(place, event.version):
                raise Malformed(f"an event of version {event.version} came after version {place}")
            place = event.version
        return place
