"""The agent sees its DaemonSet go while it may still look, and concludes from nothing else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ambient.agent.cni import fate
from ambient.agent.cni.apiserver import ApiServer

from . import api

DAEMONSET = "/apis/apps/v1/namespaces/mesh/daemonsets/agent"
THERE = {"metadata": {"name": "agent", "resourceVersion": "7"}}
GOING = {"metadata": {"name": "agent", "resourceVersion": "8", "deletionTimestamp": "2025-01-01T00:00:00Z"}}
MISSING = {"kind": "Status", "details": {"name": "agent"}}


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not what():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.005)


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[tuple[fate.Fate, api.Script]]:
    with pytest.MonkeyPatch.context() as quick, api.serving(folder) as server:
        quick.setattr(fate, "AGAIN_S", 0.02)
        server.set(DAEMONSET, 200, THERE)
        found = fate.Fate("mesh/agent", lambda: ApiServer(folder))
        found.start()
        try:
            yield found, server
        finally:
            found.close()


def event(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": found}


@pytest.mark.parametrize("news", [event("DELETED", THERE), event("MODIFIED", GOING)], ids=["gone", "going"])
def test_a_daemonset_that_goes_is_seen_though_the_account_went_before(tmp_path: Path, news: dict[str, Any]) -> None:
    with watched(tmp_path) as (found, server):
        assert server.watching.wait(5)
        server.answers.clear()  # whatever is asked from now on is refused
        assert found.gone == ""
        server.events.put(news)
        until(lambda: found.gone)
        server.events.put(None)
        until(lambda: len(server.asked) > 4)
        assert found.gone.startswith("DaemonSet mesh/agent ")


def test_a_refusal_is_no_fate(tmp_path: Path) -> None:
    with watched(tmp_path) as (found, server):
        assert server.watching.wait(5)
        server.answers.clear()
        server.events.put(None)
        until(lambda: len(server.asked) > 4)
        assert found.gone == ""


def test_one_that_comes_back_stays(tmp_path: Path) -> None:
    with watched(tmp_path) as (found, server):
        assert server.watching.wait(5)
        server.events.put(event("DELETED", THERE))
        until(lambda: found.gone)
        server.events.put(event("ADDED", THERE))
        until(lambda: not found.gone)


def test_what_happened_between_two_watches_is_seen_by_looking_again(tmp_path: Path) -> None:
    with watched(tmp_path) as (found, server):
        assert server.watching.wait(5)
        server.set(DAEMONSET, 404, MISSING)
        server.events.put(event("ERROR", {"code": 410}))
        server.events.put(None)
        until(lambda: found.gone == "DaemonSet mesh/agent is not there any more, as this agent saw")
        server.set(DAEMONSET, 200, THERE)
        until(lambda: not found.gone)


def test_an_agent_that_is_no_pod_sees_nothing_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(fate, "AGAIN_S", 0.01)
    tries: list[None] = []

    def connect() -> ApiServer:
        tries.append(None)
        return ApiServer(tmp_path)

    found = fate.Fate("mesh/agent", connect)
    found.start()
    until(lambda: len(tries) > 2)
    found.close()
    assert found.gone == ""
    assert [record.message for record in caplog.records].count(
        "what becomes of the DaemonSet is not seen: KUBERNETES_SERVICE_HOST is not set: this is no pod; asked again"
    ) == 1
