"""From rounds to figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench.engine import machine, report
from bench.engine.loads import LOADS
from bench.engine.measure import Measured, Round
from bench.engine.report import Figure

PACKAGES = Path(__file__).parents[2] / "hack" / "bench-packages.txt"


def a_round(
    side: str,
    number: int = 1,
    *,
    rate: float = 100,
    work: float = 1000,
    proxy: float = 0.0,
    agent: float = 0.0,
    errors: int = 0,
) -> Round:
    one = Measured(rate=rate, work=work, errors=errors, proxy_cpu_s=proxy, agent_cpu_s=agent)
    loads = {load.name: one for load in LOADS}
    return Round(number=number, side=side, proxy_rss_mb=10.0, agent_rss_mb=0.0, loads=loads)


def row(rounds: list[Round], name: str) -> report.Row:
    return next(row for row in report.rows(rounds) if row.name == name)


def test_a_figure_is_the_median_of_the_rounds_with_their_extremes() -> None:
    rounds = [a_round("envoy", rate=rate) for rate in (5, 1, 9, 4, 6)]
    assert row(rounds, "http_64.rate").figures["envoy"] == Figure(5, 1, 9)


def test_cpu_counts_proxies_and_agents_per_piece_of_work() -> None:
    rounds = [a_round("ambient", work=1000, proxy=0.2, agent=0.1)]
    assert row(rounds, "http_64.cpu").figures["ambient"].median == pytest.approx(300)  # us
    assert row(rounds, "http_64.agent_cpu").figures["ambient"].median == pytest.approx(100)


def test_bulk_is_in_seconds_per_gigabyte() -> None:
    assert row([a_round("envoy", work=2.0, proxy=6.6)], "bulk_8.cpu").figures["envoy"].median == pytest.approx(3.3)


def test_the_ratio_is_ours_to_envoys() -> None:
    rounds = [a_round("none"), a_round("envoy", proxy=0.4), a_round("ambient", proxy=0.2)]
    assert row(rounds, "connections_16.cpu").ratio == pytest.approx(0.5)


@pytest.mark.parametrize("sides", [["none", "envoy"], ["none", "ambient"]])
def test_there_is_no_ratio_with_one_of_them_missing(sides: list[str]) -> None:
    assert row([a_round(side, proxy=0.1) for side in sides], "http_64.cpu").ratio is None


def test_errors_are_named_by_side_and_load() -> None:
    lines = report.errors([a_round("envoy", 1, errors=2), a_round("envoy", 2, errors=3), a_round("ambient")])
    assert lines == [f"envoy: {load.title}: 5 errors" for load in LOADS]


def test_the_table_has_a_line_for_every_figure() -> None:
    rows = report.rows([a_round("none"), a_round("envoy", proxy=0.4), a_round("ambient", proxy=0.2)])
    console = Console(width=140)
    with console.capture() as printed:
        console.print(report.table(rows))
    assert all(row.title.strip() in printed.get() for row in rows)


@pytest.mark.parametrize(("value", "shown"), [(20756.4, "20,756"), (54.38, "54.4"), (3.6712, "3.67"), (0.0, "0.00")])
def test_numbers_are_short(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_the_package_list_names_every_program_that_is_checked_for() -> None:
    listed = {line.partition("#")[0].strip() for line in PACKAGES.read_text().splitlines()} - {""}
    assert listed == set(machine.PROGRAMS.values())
