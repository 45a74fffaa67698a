"""Things to be done at the API, by key: the newest wish only, one at a time for each key, again after a failure.

A storm of wishes for one thing becomes one at once and one when the storm, or a rest of `calm` seconds, is over. What
is to be done is given; ApiError means not done, and nothing else does.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from ambient.control.api import ApiError
from ambient.xds.retry import pause

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_log = logging.getLogger(__name__)


class WorkQueue(Generic[K, V]):
    def __init__(
        self,
        work: Callable[[K, V], Awaitable[None]],
        *,
        calm: float,
        last: float = 60.0,
        rng: random.Random | None = None,
    ) -> None:
        """`calm`: seconds between two things done for one key. `last`: the longest pause after failures."""
        self._work = work
        self._calm = calm
        self._last = last
        self._rng = rng or random.Random()
        self._wishes: dict[K, V] = {}  # not begun with
        self._failures: dict[K, int] = {}
        self._resting: dict[K, asyncio.TimerHandle] = {}
        self._working: set[K] = set()
        self._ready: asyncio.Queue[K] = asyncio.Queue()

    def __len__(self) -> int:
        """How much is still to be done."""
        return len(self._wishes) + len(self._working)

    def get(self, key: K) -> V | None:
        """The wish that is not begun with."""
        return self._wishes.get(key)

    def put(self, key: K, wish: V) -> None:
        """From a running event loop."""
        waits = key in self._wishes
        self._wishes[key] = wish
        if key in self._resting and key in self._failures:  # another wish may well succeed
            self._rested(key)
        elif not waits and key not in self._resting and key not in self._working:
            self._ready.put_nowait(key)

    async def run(self, workers: int) -> None:
        """Until cancelled; what was begun with is put back then."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(workers):
                tasks.create_task(self._worker(), name=f"work queue: {number}")

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            wish = self._wishes.pop(key)
            self._working.add(key)
            rest = self._calm
            try:
                await self._work(key, wish)
                self._failures.pop(key, None)
            except ApiError as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                rest = pause(failures, self._rng, last=self._last)
                _log.warning("%s: tried again in %.0f s: %s", key, rest, error)
                self._wishes.setdefault(key, wish)
            except asyncio.CancelledError:
                self._wishes.setdefault(key, wish)
                rest = 0.0
                raise
            finally:
                self._working.discard(key)
                self._resting[key] = asyncio.get_running_loop().call_later(rest, self._rested, key)

    def _rested(self, key: K) -> None:
        self._resting.pop(key).cancel()
        if key in self._wishes:
            self._ready.put_nowait(key)
        else:
            self._failures.pop(key, None)
