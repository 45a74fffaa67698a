"""Rounds become figures: medians with their spread. Pure.

`results` is what `python -m bench` writes; see run.results() for its shape.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.mesh.loads import LOADS, TITLES, Load

Results = Mapping[str, Any]


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
    """One line of the tables: a figure by mode."""

    title: str
    figures: dict[str, Figure]


def series(results: Results, load: str, mode: str, what: str) -> list[float]:
    """One figure, round by round; empty where it was not measured.

    `what`: a name in TITLES, or `cpu` (proxies and agents), `proxy_cpu`, `agent_cpu`, each per piece of work in the
    load's unit.
    """
    rounds = results["rounds"].get(mode, {}).get(load, [])
    if what in TITLES:
        return [each["figures"][what] for each in rounds]
    scale = next(one for one in LOADS if one.name == load).cpu_scale
    return [_cpu(each, what) / each["work"] * scale for each in rounds]


def _cpu(measured: Mapping[str, float], what: str) -> float:
    parts = {"proxy_cpu": ("proxy",), "agent_cpu": ("agent",), "cpu": ("proxy", "agent")}[what]
    return sum(measured[f"{part}_cpu_s"] for part in parts)


def rows(results: Results) -> list[Row]:
    """Every line, load by load: what users feel, then what it costs."""
    found = []
    for load in LOADS:
        found += [_row(results, load, name, f"{load.title}: {TITLES[name]}") for name in load.figures]
        found.append(_row(results, load, "cpu", f"… {load.cpu_unit}"))
        found.append(_row(results, load, "agent_cpu", "… of it the agents' (Python)"))
    return [row for row in found if row.figures]


def _row(results: Results, load: Load, what: str, title: str) -> Row:
    values = {mode: series(results, load.name, mode, what) for mode in results["rounds"]}
    return Row(title, {mode: Figure.of(found) for mode, found in values.items() if found})


def errors(results: Results) -> list[str]:
    """A line for what failed (and was run again, where it could be) and for what generators counted as failed."""
    lines = [f"failed: {' '.join(text.split())}" for text in results["failures"]]
    for mode, loads in results["rounds"].items():
        for name, rounds in loads.items():
            if count := sum(each["errors"] for each in rounds):
                lines.append(f"{mode}: {name}: {count} errors")
    return lines


def text(figure: Figure) -> str:
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
