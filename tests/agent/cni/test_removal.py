"""Removed or restarted: what the API server says about the DaemonSet and its namespace, and what silence means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ambient.agent.cni import removal
from ambient.agent.cni.removal import Finding

THERE: dict[str, Any] = {"metadata": {"name": "x"}}
GOING = {"metadata": {"name": "x", "deletionTimestamp": "2025-01-01T00:00:00Z"}}
NOBODY: dict[str, Any] = {}
NAMESPACE = "/api/v1/namespaces/mesh"
DAEMONSET = "/apis/apps/v1/namespaces/mesh/daemonsets/agent"


def missing(name: str) -> dict[str, Any]:
    return {"kind": "Status", "reason": "NotFound", "details": {"name": name}}


@pytest.mark.parametrize(
    ("namespace", "daemonset", "finding"),
    [
        ((200, THERE), (200, THERE), Finding.THERE),
        ((403, NOBODY), (200, THERE), Finding.THERE),
        ((200, THERE), (200, GOING), Finding.GONE),
        ((200, THERE), (404, missing("agent")), Finding.GONE),
        ((200, GOING), (200, THERE), Finding.GONE),
        ((404, missing("mesh")), (200, THERE), Finding.GONE),
        ((403, NOBODY), (403, NOBODY), Finding.UNKNOWN),
        ((200, THERE), (403, NOBODY), Finding.UNKNOWN),
        ((401, NOBODY), (401, NOBODY), Finding.UNKNOWN),
        ((401, NOBODY), (200, THERE), Finding.THERE),
        ((404, NOBODY), (404, NOBODY), Finding.UNKNOWN),
        ((404, missing("x")), (404, missing("y")), Finding.UNKNOWN),
        ((403, GOING), (403, GOING), Finding.UNKNOWN),
        ((200, THERE), (500, NOBODY), Finding.UNKNOWN),
        ((500, NOBODY), (200, THERE), Finding.THERE),
        ((500, NOBODY), (503, NOBODY), Finding.UNKNOWN),
    ],
)
def test_the_finding_follows_from_two_answers(
    namespace: tuple[int, Any], daemonset: tuple[int, Any], finding: Finding
) -> None:
    answers = {NAMESPACE: namespace, DAEMONSET: daemonset}
    found, why = removal.look("mesh", "agent", answers.__getitem__)
    assert found is finding, why
    assert why


def away(_: str) -> tuple[int, Any]:
    raise OSError("connection refused")


def refused(_: str) -> tuple[int, Any]:
    return 401, NOBODY


def test_an_api_server_that_is_away_proves_nothing() -> None:
    assert removal.look("mesh", "agent", away) == (
        Finding.UNKNOWN,
        "the API server cannot be asked: connection refused",
    )


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def find_out(get: removal.Get, seen: removal.Seen, clock: Clock) -> tuple[Finding, str]:
    return removal.find_out("mesh", "agent", get, seen, clock=clock, sleep=clock.sleep)


def nobody_saw() -> str:
    return ""


def test_who_is_away_for_a_moment_is_asked_again() -> None:
    clock = Clock()
    answers = iter([away, lambda _: (503, NOBODY), lambda _: (503, NOBODY)])
    gone = lambda path: (404, missing(path.rpartition("/")[2]))  # noqa: E731

    def get(path: str) -> tuple[int, Any]:
        return next(answers, gone)(path)

    found, _ = find_out(get, nobody_saw, clock)
    assert found is Finding.GONE
    assert clock.now < removal.PATIENCE_S


@pytest.mark.parametrize("get", [away, refused])
def test_asking_has_an_end_after_which_the_mesh_stays(get: removal.Get) -> None:
    clock = Clock()
    found, _ = find_out(get, nobody_saw, clock)
    assert found is Finding.UNKNOWN
    assert removal.PATIENCE_S - 1 <= clock.now <= removal.PATIENCE_S + 1


@pytest.mark.parametrize("get", [away, refused])
def test_a_refusal_after_the_daemonset_was_seen_to_go_is_a_removal(get: removal.Get) -> None:
    clock = Clock()
    assert find_out(get, lambda: "it went", clock) == (Finding.GONE, "it went")
    assert clock.now == 0


def test_it_may_be_seen_to_go_while_the_api_server_says_nothing() -> None:
    clock = Clock()
    assert find_out(refused, lambda: "it went" if clock.now > 5 else "", clock)[0] is Finding.GONE


def test_the_api_servers_word_is_of_now_and_counts_for_more_than_what_was_seen() -> None:
    there: Callable[[str], tuple[int, Any]] = lambda _: (200, THERE)  # noqa: E731
    assert find_out(there, lambda: "it went", Clock())[0] is Finding.THERE
