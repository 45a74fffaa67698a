"""Events: each once, counted when they repeat, and never a flood."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ambient.control import events
from ambient.control.events import Events, Subject
from tests.identity import virtual

from .apiserver import ApiServer, Json

POD = Subject(api_version="v1", kind="Pod", namespace="shop", name="web-1", uid="uid-1")


def with_events(test: Callable[[ApiServer, Events], Awaitable[None]], replicas: int = 1) -> None:
    async def main() -> None:
        server = ApiServer()
        writers = [Events(server.api(), f"control-{number}", now=virtual.now) for number in range(replicas)]
        tasks = [asyncio.create_task(each.run(), name="events under test") for each in writers]
        try:
            await test(server, *writers)
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    virtual.run(main())


def written(server: ApiServer) -> list[Json]:
    return [obj for (plural, _, _), obj in server.objects.items() if plural == "events"]


def test_an_event_says_what_went_wrong_with_what_and_who_says_so() -> None:
    async def test(server: ApiServer, ours: Events) -> None:
        ours.warn(POD, "Capture", "NoNetns", "its network namespace is gone")
        await asyncio.sleep(1)
        (event,) = written(server)
        assert event["metadata"]["namespace"] == "shop"
        assert event["metadata"]["name"].startswith("web-1.")
        assert event["regarding"] == {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "shop",
            "name": "web-1",
            "uid": "uid-1",
        }
        assert {key: event[key] for key in ("reason", "action", "type", "note", "reportingController")} == {
            "reason": "NoNetns",
            "action": "Capture",
            "type": "Warning",
            "note": "its network namespace is gone",
            "reportingController": "ambient.dev/control",
        }
        assert event["reportingInstance"] == "control-0"
        assert event["eventTime"] == "2026-01-01T00:00:00.000000Z"

    with_events(test)


def test_the_same_again_is_counted_once_in_ten_minutes() -> None:
    async def test(server: ApiServer, ours: Events) -> None:
        for _ in range(100):
            ours.warn(POD, "Capture", "NoNetns", "gone")
            await asyncio.sleep(1)
        assert len(written(server)) == 1
        assert server.count("PATCH") == 0
        await asyncio.sleep(events.REPEAT_S)
        assert written(server)[0]["series"]["count"] == 100
        assert server.count("PATCH") == 1

    with_events(test)


def test_two_replicas_that_see_the_same_write_one_event() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = (Events(server.api(), name, now=virtual.now) for name in ("control-1", "control-2"))
        tasks = [asyncio.create_task(each.run(), name="events") for each in (first, second)]
        for each in (first, second):
            each.warn(POD, "Capture", "NoNetns", "gone")
            await asyncio.sleep(1)
        (event,) = written(server)
        assert event["series"]["count"] == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    virtual.run(main())


def test_an_event_that_has_expired_is_made_anew() -> None:
    async def test(server: ApiServer, ours: Events) -> None:
        ours.warn(POD, "Capture", "NoNetns", "gone")
        await asyncio.sleep(3600)
        (event,) = written(server)
        server.delete("events", "shop", event["metadata"]["name"])
        ours.warn(POD, "Capture", "NoNetns", "gone")
        await asyncio.sleep(1)
        (again,) = written(server)
        assert "series" not in again

    with_events(test)


def test_what_has_no_namespace_has_its_events_in_the_default_one() -> None:
    async def test(server: ApiServer, ours: Events) -> None:
        ours.warn(replace(POD, kind="Node", namespace="", name="node-1"), "Capture", "NoCgroup", "no cgroup v2")
        await asyncio.sleep(1)
        assert written(server)[0]["metadata"]["namespace"] == "default"

    with_events(test)


def test_an_object_of_which_there_is_always_something_new_to_say_has_a_budget() -> None:
    async def test(server: ApiServer, ours: Events) -> None:
        for number in range(1000):
            ours.warn(POD, "Capture", "NoNetns", f"attempt {number} failed")
        ours.warn(replace(POD, name="web-2", uid="uid-2"), "Capture", "NoNetns", "gone")
        await asyncio.sleep(1)
        assert len(written(server)) == events.BURST + 1
        assert ours.dropped == 1000 - events.BURST
        await asyncio.sleep(2 * events.REFILL_S)
        for number in range(10):
            ours.warn(POD, "Capture", "NoNetns", f"later attempt {number} failed")
        await asyncio.sleep(1)
        assert len(written(server)) == events.BURST + 1 + 2

    with_events(test)


def test_while_the_api_server_is_away_only_so_many_wait_and_what_is_old_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "PENDING", 100)

    async def test(server: ApiServer, ours: Events) -> None:
        server.offline = True
        for number in range(2 * events.PENDING):
            ours.warn(replace(POD, name=f"web-{number}", uid=f"uid-{number}"), "Capture", "NoNetns", "gone")
        assert ours.dropped == events.PENDING
        await asyncio.sleep(events.STALE_S + 1)
        ours.warn(replace(POD, name="late", uid="late"), "Capture", "NoNetns", "gone")
        server.offline = False
        await asyncio.sleep(200)
        assert len(written(server)) <= 1
        ours.warn(POD, "Capture", "NoNetns", "now")
        await asyncio.sleep(1)
        assert written(server)[-1]["note"] == "now"

    with_events(test)


@pytest.mark.parametrize("status", [403, 404, 422])
def test_an_event_that_is_refused_for_good_is_given_up(status: int) -> None:
    async def test(server: ApiServer, ours: Events) -> None:
        with server.trouble("POST", "events", status=status):
            ours.warn(POD, "Capture", "NoNetns", "gone")
            await asyncio.sleep(300)
            assert server.count("POST events") == 1
        assert ours.dropped == 1

    with_events(test)


@pytest.mark.parametrize("status", [0, 429, 503])
def test_an_event_that_cannot_be_written_now_is_written_soon(status: int) -> None:
    async def test(server: ApiServer, ours: Events) -> None:
        with server.trouble("POST", "events", status=status):
            ours.warn(POD, "Capture", "NoNetns", "gone")
            await asyncio.sleep(5)
        await asyncio.sleep(10)
        assert len(written(server)) == 1

    with_events(test)


def test_a_note_keeps_to_the_apis_limit_and_to_whole_letters() -> None:
    async def test(server: ApiServer, ours: Events) -> None:
        ours.warn(POD, "Capture", "NoNetns", "ä" * 1000)
        await asyncio.sleep(1)
        assert written(server)[0]["note"] == "ä" * 512

    with_events(test)
