"""Conditions: what holds of a policy is written on it, once, by one, and never over somebody else's word."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ambient.control import status
from ambient.control.events import Events
from ambient.control.lease import Lease
from ambient.control.status import Statuses
from tests.identity import virtual

from .apiserver import ApiServer, Json, Link

POLICY, PLURAL, VERSION = "AuthorizationPolicy", "authorizationpolicies", "ambient.dev/v1alpha1"


@dataclass(frozen=True)
class Ref:
    kind: str = POLICY


@dataclass(frozen=True)
class Problem:
    path: str = "spec"
    expected: str = "a mapping"
    found: str = "nothing"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    ref: Ref = Ref()
    api_version: str = VERSION
    namespace: str = "shop"
    name: str = "only-web"
    uid: str = "uid-1"
    generation: int = 1
    version: str = ""
    conditions: Sequence[Mapping[str, object]] = ()
    problems: tuple[Problem, ...] = ()
    instead: str = ""


BAD = Outcome(problems=(Problem("spec.rules[0]", "a list", "7"),), instead="nobody may call")
Batches = asyncio.Queue[Sequence[status.Outcome]]


async def _each(queue: Batches) -> AsyncGenerator[Sequence[status.Outcome], None]:
    while True:
        yield await queue.get()


class Writer:
    """One replica's statuses and events, without a Lease unless a test adds one."""

    def __init__(self, server: ApiServer) -> None:
        self.link = Link(server)
        self.events = Events(server.api(self.link), "control-1", now=virtual.now)
        self.statuses = Statuses(server.api(self.link), self.events, now=virtual.now, rng=random.Random(7))
        self.outcomes: Batches = asyncio.Queue()

    async def work(self) -> None:
        await self.statuses.run(_each(self.outcomes))

    async def say(self, *outcomes: status.Outcome) -> None:
        await self.outcomes.put(outcomes)
        await asyncio.sleep(1.5)


@contextlib.asynccontextmanager
async def running(*work: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.sleep(0.1)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def a_policy(server: ApiServer, name: str = "only-web", *, spec: int = 1, **fields: object) -> Json:
    metadata = {"namespace": "shop", "name": name, "uid": "uid-1"}
    return server.put(PLURAL, {"metadata": metadata, "spec": {"of": spec}, **fields})


def conditions(server: ApiServer, name: str = "only-web") -> list[Json]:
    found: list[Json] = (server.get(PLURAL, "shop", name).get("status") or {}).get("conditions", [])
    return found


def writing(test: Callable[[ApiServer, Writer], Awaitable[None]]) -> None:
    async def main() -> None:
        server = ApiServer()
        writer = Writer(server)
        a_policy(server)
        async with running(writer.work(), writer.events.run()):
            await test(server, writer)

    virtual.run(main())


def events(server: ApiServer) -> list[Json]:
    return [obj for (plural, _, _), obj in server.objects.items() if plural == "events"]


def test_a_policy_that_was_accepted_says_so() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        await writer.say(Outcome())
        (condition,) = conditions(server)
        assert condition == {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "in force",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        assert not events(server)

    writing(test)


def test_a_policy_that_cannot_be_read_says_why_and_what_holds_instead_also_as_an_event() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        await writer.say(BAD)
        (condition,) = conditions(server)
        text = "spec.rules[0]: expected a list, found 7. Until that is mended: nobody may call"
        assert (condition["status"], condition["reason"], condition["message"]) == ("False", "Invalid", text)
        (event,) = events(server)
        assert (event["regarding"]["kind"], event["reason"], event["note"]) == (POLICY, "Rejected", text)

    writing(test)


def test_the_same_is_not_written_again_nor_told_again_by_another_holder() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        await writer.say(BAD)
        await writer.say(BAD)
        other = Writer(server)
        async with running(other.work(), other.events.run()):
            await other.say(BAD)
        assert server.count("PATCH") == 1
        assert server.count("POST events") == 1

    writing(test)


def as_read(server: ApiServer, **more: Any) -> Outcome:
    """As a source tells it, which has read the object."""
    version = server.get(PLURAL, "shop", "only-web")["metadata"]["resourceVersion"]
    return Outcome(version=version, conditions=conditions(server), **more)


def test_what_was_read_when_it_was_judged_is_not_read_again() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        await writer.say(as_read(server))
        assert conditions(server)
        assert (server.count("GET"), server.count("PATCH")) == (0, 1)
        await writer.say(as_read(server))  # our own write comes back
        other = Writer(server)
        async with running(other.work()):
            await other.say(as_read(server))
        assert (server.count("GET"), server.count("PATCH")) == (0, 1)

    writing(test)


def test_what_is_another_than_it_was_when_it_was_judged_is_read_again() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        judged = as_read(server)
        a_policy(server, status={"conditions": [{"type": "Reconciled", "status": "True"}]})
        await writer.say(judged)
        assert [each["type"] for each in conditions(server)] == ["Reconciled", "Accepted"]
        stale = as_read(server, problems=(Problem(),))
        a_policy(server, spec=2)
        await writer.say(stale)
        assert conditions(server)[-1]["status"] == "True"  # of the second generation there will be another outcome

    writing(test)


def test_of_what_was_read_and_is_gone_or_another_nothing_is_said() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        judged = as_read(server, problems=(Problem(),))
        server.delete(PLURAL, "shop", "only-web")
        await writer.say(judged)
        server.put(PLURAL, {"metadata": {"namespace": "shop", "name": "only-web", "uid": "uid-2"}, "spec": {}})
        await writer.say(judged)
        assert not conditions(server)
        assert not events(server)

    writing(test)


def test_the_time_of_a_transition_changes_with_the_status_only() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        await writer.say(Outcome())
        await asyncio.sleep(3600)
        a_policy(server, spec=2)
        await writer.say(Outcome(generation=2))
        (condition,) = conditions(server)
        assert (condition["observedGeneration"], condition["lastTransitionTime"]) == (2, "2026-01-01T00:00:00Z")
        a_policy(server, spec=3)
        await writer.say(Outcome(generation=3, problems=(Problem(),)))
        (condition,) = conditions(server)
        assert condition["lastTransitionTime"] == "2026-01-01T01:00:03Z"

    writing(test)


def test_other_peoples_conditions_and_status_stay() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        theirs = {"type": "Reconciled", "status": "True"}
        a_policy(server, status={"conditions": [theirs], "observedBy": "them"})
        await writer.say(Outcome())
        assert [each["type"] for each in conditions(server)] == ["Reconciled", "Accepted"]
        assert server.get(PLURAL, "shop", "only-web")["status"]["observedBy"] == "them"

    writing(test)


def test_of_a_generation_that_is_past_nothing_is_said() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        a_policy(server, spec=2)
        await writer.say(BAD)
        assert not conditions(server)
        assert not events(server)

    writing(test)


def test_of_an_object_that_is_gone_or_another_by_now_nothing_is_said() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        server.delete(PLURAL, "shop", "only-web")
        await writer.say(BAD)
        server.put(PLURAL, {"metadata": {"namespace": "shop", "name": "only-web", "uid": "uid-2"}, "spec": {}})
        await writer.say(BAD)
        assert not conditions(server)
        assert not server.count("PATCH")

    writing(test)


def test_somebody_who_writes_in_between_is_not_written_over() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        gate = asyncio.Event()
        ordered = server.order("PATCH", PLURAL, gate=gate, times=1)
        await writer.outcomes.put([Outcome()])
        await ordered.arrived.wait()
        a_policy(server, status={"conditions": [{"type": "Reconciled", "status": "True"}]})
        gate.set()
        await asyncio.sleep(3)
        assert [each["type"] for each in conditions(server)] == ["Reconciled", "Accepted"]

    writing(test)


@pytest.mark.parametrize("trouble", [503, 0, 403], ids=["unavailable", "no connection", "forbidden for a while"])
def test_what_could_not_be_written_is_written_when_it_can_be(trouble: int) -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        with server.trouble("PATCH", PLURAL, status=trouble):
            await writer.say(Outcome())
            await asyncio.sleep(60)
            assert server.count("PATCH") < 12
        await asyncio.sleep(120)
        assert conditions(server)

    writing(test)


def test_a_definition_without_a_status_is_no_trouble() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        with server.trouble("PATCH", PLURAL, status=404):
            await writer.say(BAD)
            await asyncio.sleep(600)
        assert server.count("PATCH") == 1
        assert len(events(server)) == 1

    writing(test)


def test_a_storm_of_changes_costs_two_writes() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        for generation in range(2, 200):
            a_policy(server, spec=generation)
            await writer.outcomes.put([Outcome(generation=generation)])
            await asyncio.sleep(0.004)
        await asyncio.sleep(3)
        assert conditions(server)[0]["observedGeneration"] == 199
        assert server.count("PATCH") <= 3

    writing(test)


def test_a_mistake_in_what_has_no_conditions_is_an_event() -> None:
    async def test(server: ApiServer, writer: Writer) -> None:
        problem = Problem("metadata.annotations", "ports", "'x'")
        await writer.say(Outcome(ref=Ref("Pod"), api_version="v1", name="web-1", problems=(problem,)))
        note = "metadata.annotations: expected ports, found 'x'"
        assert [(each["regarding"]["kind"], each["note"]) for each in events(server)] == [("Pod", note)]
        assert not server.count("PATCH")

    writing(test)


def test_only_the_holder_of_the_lease_writes_and_one_that_loses_it_in_the_middle_does_no_harm() -> None:
    async def main() -> None:
        server = ApiServer()
        a_policy(server)
        first, second = Writer(server), Writer(server)
        leases = [
            Lease(server.api(each.link), "ambient-system", "control", name, now=virtual.now, rng=random.Random(name))
            for each, name in ((first, "first"), (second, "second"))
        ]
        async with running(leases[0].run(first.work)), running(leases[1].run(second.work)):
            gate = asyncio.Event()
            begun = server.order("PATCH", PLURAL, gate=gate, times=1)
            await first.outcomes.put([Outcome()])
            await begun.arrived.wait()  # the first one's write is on its way, and so are its last words
            first.link.silent, first.link.cut = True, True
            await asyncio.sleep(20)
            assert [lease.held for lease in leases] == [False, True]
            a_policy(server, spec=2)
            await second.say(Outcome(generation=2, problems=(Problem(),)))
            gate.set()
            await asyncio.sleep(60)
        (condition,) = conditions(server)
        assert (condition["observedGeneration"], condition["status"]) == (2, "False")

    virtual.run(main())
