"""From rounds to figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_results import a_measured, some_results

from bench.mesh import figures, machine
from bench.mesh.figures import Figure

PACKAGES = Path(__file__).parents[2] / "hack" / "bench-packages.txt"


def test_a_figure_is_the_median_of_the_rounds_with_their_extremes() -> None:
    assert Figure.of([5, 1, 9, 4, 6]) == Figure(5, 1, 9)


def test_a_series_has_a_value_for_each_round() -> None:
    results = some_results({"envoy": {"http_64": [a_measured(3), a_measured(1)]}})
    assert figures.series(results, "http_64", "envoy", "per_s") == [3, 1]


@pytest.mark.parametrize(
    ("what", "expected"), [("cpu", 300), ("proxy_cpu", 200), ("agent_cpu", 100)], ids=["both", "proxies", "agents"]
)
def test_cpu_is_per_piece_of_work(what: str, expected: float) -> None:
    results = some_results({"ambient": {"http_64": [a_measured(work=1000, proxy=0.2, agent=0.1)]}})
    assert figures.series(results, "http_64", "ambient", what) == [pytest.approx(expected)]  # us


def test_bulk_is_in_cpu_seconds_per_gigabyte() -> None:
    results = some_results({"envoy": {"bulk_8": [a_measured(work=2.0, proxy=6.6)]}})
    assert figures.series(results, "bulk_8", "envoy", "cpu") == [pytest.approx(3.3)]


@pytest.mark.parametrize(("load", "mode"), [("http_64", "none"), ("http_16", "envoy")], ids=["mode", "load"])
def test_what_was_not_measured_is_an_empty_series(load: str, mode: str) -> None:
    assert figures.series(some_results({"envoy": {"http_64": [a_measured()]}}), load, mode, "per_s") == []


def test_rows_are_of_what_was_measured() -> None:
    results = some_results({"none": {"bulk_1": [a_measured()]}, "envoy": {"bulk_1": [a_measured(proxy=1.0)]}})
    found = figures.rows(results)
    assert [row.title for row in found] == ["bulk, 1 stream: Gbit/s", "… CPU s per GB", "… of it the agents' (Python)"]
    assert all(set(row.figures) == {"none", "envoy"} for row in found)


def test_errors_are_named_by_mode_and_load_and_so_is_what_failed() -> None:
    rounds = {
        "envoy": {"http_64": [a_measured(errors=2), a_measured(errors=3)]},
        "ambient": {"http_64": [a_measured()]},
    }
    results = some_results(rounds, failures=["ambient, bulk_8: iperf3:\nBroken pipe"])
    assert figures.errors(results) == ["failed: ambient, bulk_8: iperf3: Broken pipe", "envoy: http_64: 5 errors"]


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (Figure(20756.4, 19999.9, 30000), "20,756 (20,000 to 30,000)"),
        (Figure(54.38, 54.38, 54.38), "54.4"),
        (Figure(3.6712, 3.6712, 3.6712), "3.67"),
        (Figure(0, 0, 0), "0"),
    ],
)
def test_figures_are_shown_short(figure: Figure, shown: str) -> None:
    assert figures.text(figure) == shown


def test_the_package_list_names_every_program_that_is_checked_for() -> None:
    listed = {line.partition("#")[0].strip() for line in PACKAGES.read_text().splitlines()} - {""}
    assert listed == set(machine.PROGRAMS.values())
