"""Ratios, and which goals they reach."""

from __future__ import annotations

import pytest
from bench_results import AN_IDLE, a_measured, some_results

from bench.mesh import goals
from bench.mesh.figures import Figure
from bench.mesh.goals import ACROSS, SAME, Goal, Verdict
from bench.mesh.loads import NAMES

AT_MOST = Goal(ACROSS, "http_64", "per_s", 0.75, at_most=True)


def test_a_ratio_is_made_within_each_round() -> None:
    """The machine was three times slower in the second round; the ratio does not mind."""
    ours, theirs = [a_measured(50), a_measured(150)], [a_measured(100), a_measured(300)]
    results = some_results({"ambient": {"http_64": ours}, "envoy": {"http_64": theirs}})
    assert goals.ratio(results, AT_MOST) == [0.5, 0.5]


def test_a_round_in_which_the_other_cost_nothing_has_no_ratio() -> None:
    rounds = {"ambient": {"http_64": [a_measured(1)]}, "envoy": {"http_64": [a_measured(0)]}}
    assert goals.ratio(some_results(rounds), AT_MOST) == []


@pytest.mark.parametrize("modes", [["ambient"], ["envoy"], ["none", "none_same"]], ids=" and ".join)
def test_there_is_no_verdict_with_one_of_them_missing(modes: list[str]) -> None:
    assert goals.verdicts(some_results({mode: {"http_64": [a_measured()]} for mode in modes})) == []


@pytest.mark.parametrize(
    ("value", "at_most", "reached"),
    [(0.5, True, True), (0.76, True, False), (0.75, True, True), (0.5, False, False), (0.75, False, True)],
)
def test_a_bound_is_reached_by_the_median_of_the_ratios(value: float, at_most: bool, reached: bool) -> None:
    verdict = Verdict("across", "rate", 0.75, at_most, Figure(value, 0.1, 9.0), "")
    assert verdict.reached is reached


def test_same_node_goals_are_ratios_to_no_mesh_on_the_same_node() -> None:
    rounds = {
        mode: {"round_trip_1": [a_measured(value)]} for mode, value in (("ambient_same", 102), ("none_same", 100))
    }
    found = goals.verdicts(some_results(rounds))
    assert [(verdict.title, verdict.measured, verdict.reached) for verdict in found] == [
        ("64-byte round trips, 1 connection: p50", "1.02", True),
        ("64-byte round trips, 1 connection: p99", "1.02", True),
    ]


def test_of_memory_the_worst_process_counts() -> None:
    found = goals.verdicts(some_results({}, idle={"ambient": AN_IDLE}))
    assert [(verdict.goal, verdict.measured, verdict.reached) for verdict in found] == [
        ("≤ 60 MB", "60.0 (55.0 to 65.0) MB", False),
        ("≤ 10 MB", "8.50 (8.00 to 9.00) MB", True),
        ("≤ 8 KB", "6.00 (5.00 to 7.00) KB", True),
    ]


def test_every_goal_is_of_a_load_that_is_run_and_of_modes_that_are() -> None:
    assert {goal.load for goal in goals.GOALS} <= set(NAMES)
    assert {goal.modes for goal in goals.GOALS} == {SAME, ACROSS}
