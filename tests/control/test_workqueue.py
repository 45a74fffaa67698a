"""The work queue: a storm becomes two things done, a failure is tried again, and nothing is done twice at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from ambient.control.api import ApiError
from ambient.control.workqueue import WorkQueue
from tests.identity import virtual

CALM = 1.0


class Worker:
    """What was done, when; and how it goes."""

    def __init__(self) -> None:
        self.done: list[tuple[float, str, int]] = []
        self.takes = 0.0
        self.fails = 0
        self.at_once: dict[str, int] = {}
        self.most_at_once = 0
        self.queue: WorkQueue[str, int] = WorkQueue(self.work, calm=CALM, rng=random.Random(7))

    async def work(self, key: str, wish: int) -> None:
        self.at_once[key] = self.at_once.get(key, 0) + 1
        self.most_at_once = max(self.most_at_once, self.at_once[key])
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.at_once[key] -= 1
        if self.fails:
            self.fails -= 1
            raise ApiError("as ordered")
        self.done.append((asyncio.get_running_loop().time(), key, wish))

    @property
    def wishes(self) -> list[int]:
        return [wish for _, _, wish in self.done]


@contextlib.asynccontextmanager
async def running(worker: Worker, workers: int = 3) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(worker.queue.run(workers), name="queue under test")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_storm_of_wishes_is_fulfilled_at_once_and_once_more_at_its_end() -> None:
    async def main() -> None:
        worker = Worker()
        async with running(worker):
            for wish in range(1000):
                worker.queue.put("a", wish)
                await asyncio.sleep(CALM / 2000)
            await asyncio.sleep(10)
        assert worker.wishes == [0, 999]
        assert worker.done[1][0] - worker.done[0][0] >= CALM

    virtual.run(main())


def test_different_keys_do_not_wait_for_each_other() -> None:
    async def main() -> None:
        worker = Worker()
        worker.takes = 5.0
        async with running(worker):
            for key in "abc":
                worker.queue.put(key, 1)
            await asyncio.sleep(5.5)
            assert sorted(key for _, key, _ in worker.done) == ["a", "b", "c"]
            assert len(worker.queue) == 0

    virtual.run(main())


def test_one_key_is_never_worked_on_twice_at_once() -> None:
    async def main() -> None:
        worker = Worker()
        worker.takes = 3.0
        async with running(worker):
            for wish in range(20):
                worker.queue.put("a", wish)
                await asyncio.sleep(0.7)
            await asyncio.sleep(30)
        assert worker.most_at_once == 1
        assert worker.wishes[-1] == 19

    virtual.run(main())


def test_what_failed_is_tried_again_ever_more_rarely_until_it_is_done() -> None:
    async def main() -> None:
        worker = Worker()
        worker.fails = 5
        async with running(worker):
            worker.queue.put("a", 1)
            await asyncio.sleep(1 + 2 + 4 + 8)
            assert not worker.done
            await asyncio.sleep(60)
        assert worker.wishes == [1]
        assert worker.done[0][0] > 20

    virtual.run(main())


def test_a_new_wish_does_not_wait_for_the_pause_after_a_failure() -> None:
    async def main() -> None:
        worker = Worker()
        worker.fails = 6
        async with running(worker):
            worker.queue.put("a", 1)
            await asyncio.sleep(45)
            assert not worker.done
            worker.fails = 0
            worker.queue.put("a", 2)
            await asyncio.sleep(0.1)
            assert worker.wishes == [2]
            await asyncio.sleep(600)
            assert worker.wishes == [2]

    virtual.run(main())


def test_a_wish_that_came_during_a_failure_takes_the_place_of_what_failed() -> None:
    async def main() -> None:
        worker = Worker()
        worker.takes, worker.fails = 1.0, 1
        async with running(worker):
            worker.queue.put("a", 1)
            await asyncio.sleep(0.5)
            worker.queue.put("a", 2)
            await asyncio.sleep(10)
        assert worker.wishes == [2]

    virtual.run(main())


def test_one_that_is_cancelled_forgets_nothing_it_had_begun() -> None:
    async def main() -> None:
        worker = Worker()
        worker.takes = 10.0
        async with running(worker):
            worker.queue.put("a", 1)
            await asyncio.sleep(1)
        assert worker.queue.get("a") == 1
        async with running(worker):
            await asyncio.sleep(20)
        assert worker.wishes == [1]

    virtual.run(main())


def test_nothing_is_kept_of_what_is_done() -> None:
    async def main() -> None:
        worker = Worker()
        worker.fails = 3
        async with running(worker):
            for number in range(100):
                worker.queue.put(f"{number}", 1)
            await asyncio.sleep(100)
        queue = worker.queue
        assert len(worker.done) == 100
        assert not any((queue._wishes, queue._failures, queue._resting, queue._working))

    virtual.run(main())


def test_a_mistake_of_ours_is_not_taken_for_trouble_of_the_api() -> None:
    async def main() -> None:
        async def broken(_key: str, _wish: int) -> None:
            raise ZeroDivisionError

        queue: WorkQueue[str, int] = WorkQueue(broken, calm=CALM)
        queue.put("a", 1)
        with pytest.raises(ExceptionGroup) as failed:
            await queue.run(1)
        assert failed.group_contains(ZeroDivisionError)

    virtual.run(main())
