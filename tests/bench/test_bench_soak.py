"""Flat, or not: what the soak's criterion says of series that we know."""

from __future__ import annotations

import math
import random

import pytest

from bench.soak import churn, flat, report

MIB = 1 << 20
HALF_AN_HOUR = [i * 3.0 for i in range(600)]


def noise(i: int, spread: float) -> float:
    return random.Random(i).uniform(-spread, spread)


FLAT = {
    "a constant": lambda _: 40 * MIB,
    "noise": lambda i: 40 * MIB + noise(i, 3 * MIB),
    "a sawtooth": lambda i: 40 * MIB + (i % 20) * MIB / 5,
    "a step in the first half": lambda i: 40 * MIB if i > 200 else 20 * MIB,
    "a cache that fills in the first half": lambda i: 40 * MIB - 20 * MIB * math.exp(-i / 50),
    "a burst of a tenth of the time": lambda i: (90 if 400 < i < 460 else 40) * MIB,
    "one that shrinks": lambda i: 60 * MIB - i * MIB / 100,
}
GROWS = {
    "a slow leak": lambda i: 40 * MIB + i * MIB / 200,
    "a leak below noise": lambda i: 40 * MIB + i * MIB / 150 + noise(i, 3 * MIB),
    "a leak with a sawtooth": lambda i: 40 * MIB + (i % 20) * MIB / 5 + i * MIB / 150,
}


@pytest.mark.parametrize("series", FLAT)
def test_this_is_flat(series: str) -> None:
    assert flat.trend([(at, FLAT[series](i)) for i, at in enumerate(HALF_AN_HOUR)]).within(flat.MEMORY)


@pytest.mark.parametrize("series", GROWS)
def test_this_is_not(series: str) -> None:
    assert not flat.trend([(at, GROWS[series](i)) for i, at in enumerate(HALF_AN_HOUR)]).within(flat.MEMORY)


@pytest.mark.parametrize(("each_pod", "expected"), [(0.0, True), (0.05, False)], ids=["none", "one of twenty"])
def test_an_entry_that_some_pods_leave_behind_is_seen(each_pod: float, expected: bool) -> None:
    """Of the five minutes' form: 100 samples, some 2 pods a second."""
    samples = [(i * 3.0, float(round(8 + i % 3 + i * 6 * each_pod))) for i in range(100)]
    assert flat.trend(samples).within(flat.COUNT) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("node1 agent memory", flat.MEMORY),
        ("node2 engine descriptors", flat.STASHED),
        ("node2 agent descriptors", flat.COUNT),
        ("node1 map clients", flat.COUNT),
        ("node1 metrics", flat.SERIES),
    ],
)
def test_what_may_grow_by_how_much(name: str, expected: flat.Tolerance) -> None:
    assert report.tolerance(name) == expected


def test_too_few_samples_tell_nothing() -> None:
    with pytest.raises(ValueError, match="9 samples tell nothing"):
        flat.trend([(float(i), 1.0) for i in range(9)])


def test_the_table_names_what_grows() -> None:
    samples = [(i * 1.0, {"node1 agent memory": 40.0 * MIB + i * MIB, "node1 map pods": 4.0}) for i in range(20)]
    trends = report.trends(samples)
    assert report.not_flat(trends) == ["node1 agent memory"]
    lines = report.table(trends).splitlines()
    assert lines[2:] == [
        "| node1 agent memory | 55,808 | +9,216.0 | **grows** |",
        "| node1 map pods | 4 | +0.0 | flat |",
    ]


def test_names_come_again_and_generations_that_overlap_have_none_in_common() -> None:
    def names(number: int) -> set[str]:
        return {made["metadata"]["name"] for made in churn.generation(number, "10.0.0.1")}

    assert names(0) == names(churn.NAMES)
    assert not names(0) & names(1)
