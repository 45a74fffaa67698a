"""Leadership: never two at work, and never nobody for long. In virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from ambient.control.lease import DURATION_S, RENEW_WITHIN_S, RETRY_S, Lease
from tests.identity import virtual

from .apiserver import ApiServer, Link

NOTICED = RETRY_S * 1.2 + 0.1  # how long what the server says may stay unseen


class Replica:
    """One that wants the Lease, and when it was at work."""

    def __init__(self, server: ApiServer, name: str, *, skew: timedelta = timedelta(0)) -> None:
        self.link = Link(server)
        self.spans: list[tuple[float, float]] = []
        self.began: float | None = None
        self.slow_to_stop = 0.0
        self.lease = Lease(
            server.api(self.link),
            "ambient-system",
            "ambient-control",
            name,
            now=lambda: virtual.now() + skew,
            rng=random.Random(name),
        )

    async def work(self) -> None:
        self.began = _time()
        try:
            await asyncio.Event().wait()
        finally:
            if self.slow_to_stop:
                await asyncio.sleep(self.slow_to_stop)
            self.spans.append((self.began, _time()))
            self.began = None

    @property
    def working(self) -> bool:
        return self.began is not None


def _time() -> float:
    return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(replica.lease.run(replica.work), name="replica") for replica in replicas]
    try:
        await asyncio.sleep(0.1)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def two(test: Callable[[ApiServer, Replica, Replica, list[asyncio.Task[None]]], Awaitable[None]]) -> None:
    """`test` with two replicas, of which the first one holds the Lease."""

    async def main() -> None:
        server = ApiServer()
        first, second = Replica(server, "first"), Replica(server, "second")
        async with running(first, second) as tasks:
            if second.working:
                first, second, tasks = second, first, tasks[::-1]
            await test(server, first, second, tasks)
        _never_two(first, second)

    virtual.run(main())


def _never_two(*replicas: Replica) -> None:
    spans = sorted(span for replica in replicas for span in replica.spans)
    assert spans
    assert all(ended <= begins for (_, ended), (begins, _) in itertools.pairwise(spans)), spans


def test_of_two_that_start_at_once_one_is_at_work_for_good() -> None:
    async def test(server: ApiServer, first: Replica, second: Replica, _: list[asyncio.Task[None]]) -> None:
        await asyncio.sleep(600)
        assert first.working
        assert first.lease.held
        assert not second.lease.held
        assert not second.spans
        spec = server.get("leases", "ambient-system", "ambient-control")["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("first", 1)

    two(test)


def test_who_is_told_to_end_hands_over_at_once() -> None:
    async def test(_: ApiServer, first: Replica, second: Replica, tasks: list[asyncio.Task[None]]) -> None:
        tasks[0].cancel()
        await asyncio.sleep(NOTICED)
        assert not first.working
        assert second.working

    two(test)


def test_a_renewal_under_way_does_not_keep_it_from_being_handed_over() -> None:
    async def test(server: ApiServer, _: Replica, second: Replica, tasks: list[asyncio.Task[None]]) -> None:
        answer_lost = server.order("PUT", "leases", done_first=True, gate=asyncio.Event(), times=1)
        await answer_lost.arrived.wait()
        tasks[0].cancel()
        await asyncio.sleep(NOTICED)
        assert second.working

    two(test)


def test_a_holder_that_died_without_a_word_is_replaced_when_its_time_is_over() -> None:
    async def test(_: ApiServer, first: Replica, second: Replica, tasks: list[asyncio.Task[None]]) -> None:
        first.link.cut = True
        tasks[0].cancel()
        await asyncio.sleep(DURATION_S - RETRY_S - 0.1)
        assert not second.working
        await asyncio.sleep(RETRY_S + NOTICED + 0.2)
        assert second.working

    two(test)


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_holder_without_the_api_stops_before_another_begins(silent: bool) -> None:
    async def test(_: ApiServer, first: Replica, second: Replica, __: list[asyncio.Task[None]]) -> None:
        first.link.silent, first.link.cut = silent, True
        first.slow_to_stop = 2.0
        await asyncio.sleep(RENEW_WITHIN_S + 0.1)
        assert not first.lease.held
        await asyncio.sleep(DURATION_S - RENEW_WITHIN_S + NOTICED)
        assert second.working
        first.link.cut = False
        await asyncio.sleep(60)
        assert not first.working  # it is in line again
        assert first.spans[0][1] <= (second.began or 0)

    two(test)


def test_an_api_server_that_restarts_costs_nobody_the_lease() -> None:
    async def test(server: ApiServer, first: Replica, second: Replica, _: list[asyncio.Task[None]]) -> None:
        server.offline = True
        await asyncio.sleep(RENEW_WITHIN_S - RETRY_S - 0.5)
        server.offline = False
        await asyncio.sleep(60)
        assert first.working
        assert not second.spans

    two(test)


def test_a_renewal_whose_answer_is_lost_is_a_renewal() -> None:
    async def test(server: ApiServer, first: Replica, second: Replica, _: list[asyncio.Task[None]]) -> None:
        for _number in range(5):
            lost = server.order("PUT", "leases", done_first=True, times=1)
            await asyncio.sleep(3 * RETRY_S)
            assert lost.arrived.is_set()
        assert first.working
        assert not first.spans
        assert not second.spans

    two(test)


def test_a_lease_that_somebody_else_was_given_is_left_to_them() -> None:
    async def test(server: ApiServer, first: Replica, _: Replica, __: list[asyncio.Task[None]]) -> None:
        lease = server.get("leases", "ambient-system", "ambient-control")
        server.put("leases", {**lease, "spec": {**lease["spec"], "holderIdentity": "an operator"}})
        await asyncio.sleep(RETRY_S + 0.1)
        assert not first.lease.held
        assert not first.working

    two(test)


def test_a_lease_that_is_deleted_is_nobodys_and_taken_anew() -> None:
    async def test(server: ApiServer, first: Replica, second: Replica, _: list[asyncio.Task[None]]) -> None:
        server.delete("leases", "ambient-system", "ambient-control")
        await asyncio.sleep(2 * NOTICED)
        assert first.working != second.working

    two(test)


def test_somebody_who_only_touches_it_takes_nothing_away() -> None:
    async def test(server: ApiServer, first: Replica, _: Replica, __: list[asyncio.Task[None]]) -> None:
        lease = server.get("leases", "ambient-system", "ambient-control")
        server.put("leases", {**lease, "metadata": {**lease["metadata"], "labels": {"a": "b"}}})
        await asyncio.sleep(60)
        assert first.working
        assert not first.spans
        assert server.get("leases", "ambient-system", "ambient-control")["metadata"]["labels"] == {"a": "b"}

    two(test)


@pytest.mark.parametrize("hours", [-24, 24])
def test_clocks_that_differ_by_a_day_change_nothing(hours: int) -> None:
    async def main() -> None:
        server = ApiServer()
        first = Replica(server, "first")
        second = Replica(server, "second", skew=timedelta(hours=hours))
        async with running(first) as tasks, running(second):
            await asyncio.sleep(120)
            assert first.working
            assert not second.spans
            first.link.cut = True
            tasks[0].cancel()
            await asyncio.sleep(DURATION_S + NOTICED)
            assert second.working
        _never_two(first, second)

    virtual.run(main())


def test_work_that_fails_is_not_hidden_and_the_lease_is_free() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = Replica(server, "first"), Replica(server, "second")

        async def fail() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await first.lease.run(fail)
        async with running(second):
            assert second.working

    virtual.run(main())


def test_work_that_ends_is_a_mistake() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="ended by itself"):
            await Replica(ApiServer(), "first").lease.run(lambda: asyncio.sleep(1))

    virtual.run(main())


def test_an_absent_api_server_is_complained_about_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = ApiServer()
        server.offline = True
        replica = Replica(server, "first")
        async with running(replica):
            await asyncio.sleep(60)
            server.offline = False
            await asyncio.sleep(NOTICED)
            assert replica.working

    virtual.run(main())
    assert caplog.text.count("cannot acquire Lease ambient-control") == 1
