"""Rounds become figures: medians with their spread, and one table with ratios. Pure but for printing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.engine.loads import LOADS, Load
from bench.engine.measure import Round

RATIO = ("ambient", "envoy")


@dataclass(frozen=True, slots=True)
class Figure:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])


@dataclass(frozen=True, slots=True)
class Row:
    name: str  # in results, stable
    title: str
    figures: dict[str, Figure]  # by side

    @property
    def ratio(self) -> float | None:
        """Ours to Envoy's median; None where one is missing or nothing."""
        ours, theirs = (self.figures.get(side) for side in RATIO)
        return ours.median / theirs.median if ours and theirs and theirs.median else None


def rows(rounds: Sequence[Round]) -> list[Row]:
    """Every column of the comparison. A figure is made per round, then the median taken."""
    found = []
    for load in LOADS:
        found += _load_rows(rounds, load)
    found.append(_row(rounds, "proxy_rss_mb", "idle memory, both proxies, MB", lambda each: each.proxy_rss_mb))
    found.append(_row(rounds, "agent_rss_mb", "idle memory, both agents, MB", lambda each: each.agent_rss_mb))
    return found


def _load_rows(rounds: Sequence[Round], load: Load) -> list[Row]:
    def per_work(seconds: Callable[[Round], float]) -> Callable[[Round], float]:
        return lambda each: seconds(each) / each.loads[load.name].work * load.cpu_scale

    def proxies(each: Round) -> float:
        return each.loads[load.name].proxy_cpu_s

    def agents(each: Round) -> float:
        return each.loads[load.name].agent_cpu_s

    def both(each: Round) -> float:
        return proxies(each) + agents(each)

    name = load.name
    return [
        _row(rounds, f"{name}.rate", f"{load.title}, {load.rate_unit}", lambda each: each.loads[name].rate),
        _row(rounds, f"{name}.cpu", f"  {load.cpu_unit}, agents included", per_work(both)),
        _row(rounds, f"{name}.agent_cpu", "    of it the agents (Python)", per_work(agents)),
    ]


def _row(rounds: Sequence[Round], name: str, title: str, value: Callable[[Round], float]) -> Row:
    sides = dict.fromkeys(each.side for each in rounds)
    figures = {side: Figure.of(value(each) for each in rounds if each.side == side) for side in sides}
    return Row(name, title, figures)


def errors(rounds: Sequence[Round]) -> list[str]:
    """What load generators counted as failed, one line per load and side."""
    lines = []
    for side in dict.fromkeys(each.side for each in rounds):
        for load in LOADS:
            count = sum(each.loads[load.name].errors for each in rounds if each.side == side)
            if count:
                lines.append(f"{side}: {load.title}: {count} errors")
    return lines


def table(found: Sequence[Row]) -> Table:
    sides = list(found[0].figures)
    result = Table(title="medians of all rounds, lowest to highest in brackets")
    result.add_column("")
    for side in sides:
        result.add_column(side, justify="right")
    result.add_column(" / ".join(RATIO), justify="right")
    for row in found:
        cells = [_cell(row.figures[side]) for side in sides]
        ratio = row.ratio
        result.add_row(row.title, *cells, f"{ratio:.2f}" if ratio is not None else "")
    return result


def _cell(figure: Figure) -> str:
    if not figure.high:
        return "0"
    if figure.low == figure.high:
        return number(figure.median)
    return f"{number(figure.median)} ({number(figure.low)} to {number(figure.high)})"


def number(value: float) -> str:
    """Three digits are more than such a measurement is worth."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
