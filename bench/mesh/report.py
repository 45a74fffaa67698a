"""The results for people at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.mesh import figures, goals
from bench.mesh.figures import Results
from bench.mesh.modes import NAMES


def show(console: Console, results: Results) -> None:
    if any(found for loads in results["rounds"].values() for found in loads.values()):
        console.print(_figures(results))
    if verdicts := goals.verdicts(results):
        console.print(_goals(verdicts))
    for line in figures.errors(results):
        console.print(line, style="bold red")


def _figures(results: Results) -> Table:
    modes = [mode for mode in NAMES if mode in results["rounds"]]
    table = Table(title="medians of all rounds, lowest to highest in brackets")
    table.add_column("")
    for mode in modes:
        table.add_column(mode, justify="right")
    for row in figures.rows(results):
        table.add_row(row.title, *(figures.text(row.figures[mode]) if mode in row.figures else "" for mode in modes))
    return table


def _goals(verdicts: list[goals.Verdict]) -> Table:
    table = Table(title="goals: medians of the rounds' ratios")
    for name in ("", "what", "goal", "found", ""):
        table.add_column(name)
    for verdict in verdicts:
        end = "[green]reached[/]" if verdict.reached else "[red]missed[/]"
        table.add_row(verdict.where, verdict.title, verdict.goal, verdict.measured, end)
    return table
