"""The control plane's bench: Worlds that make sense, changes that are one change, a table with what was measured."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from ambient.model.world import diff
from bench.control import inprocess, measure, report, worlds
from bench.mesh import cpu


@pytest.mark.parametrize("pods", [1, 7, 250])
def test_a_world_has_as_many_pods_as_asked_for_and_no_problems(pods: int) -> None:
    world = worlds.world(pods)
    assert len(world.workloads) == pods
    assert world.problems() == []
    assert sum(len(each) for each in world.endpoints.values()) == pods


@pytest.mark.parametrize("kind", ["pod", "policy"])
def test_a_change_changes_one_object_and_never_the_same_twice_in_a_row(kind: str) -> None:
    world, seen = worlds.world(200), []
    for number in range(5):
        after = worlds.change(world, kind, number)
        changes = diff(world, after)
        (key,) = changes.workloads | changes.policies
        assert after.revision == f"{kind}-{number}"
        seen.append(key)
        world = after
    assert all(one != following for one, following in itertools.pairwise(seen))


def test_every_part_is_measured() -> None:
    found = inprocess.figures(50, 3, 2)
    assert found["resources"] > 60
    assert found.keys() <= report.ROWS.keys() | {"world_mb", "snapshot_mb"}


def test_a_server_and_agents_are_measured_over_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "REST_S", 0.02)
    with measure.serving(20) as (target, ready):
        found = measure.pushes(target, 2, 2, ("pod",))
    assert found.keys() | ready.keys() <= report.ROWS.keys()
    assert 0 < found["pod_p50_ms"] <= found["pod_p99_ms"]


def test_states_that_reached_everybody_before_the_change_are_not_its() -> None:
    told = iter([[1.0, 2.0], [3.0, 5.0], [6.0, 7.0]])
    assert measure._arrivals(lambda _: {"arrivals": next(told)}, 4.0) == [3.0, 5.0]


def test_the_table_has_a_row_for_what_was_measured_and_none_for_the_rest() -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(report.table({"1000": {"pod_cpu_ms": 3.0}, "x": {}}, 7))
    assert "whole control plane, CPU ms" in out.getvalue()
    assert "7 simulated" in out.getvalue()
    assert "p99" not in out.getvalue()
