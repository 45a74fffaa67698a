"""python -m bench.control: what the control plane costs by the size of the mesh. The composition root of the bench."""

from __future__ import annotations

import json
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from ambient.cli import names
from bench import command
from bench.control import measure, report
from bench.control.measure import Figures, Target
from bench.mesh import cpu, machine

RESULTS = Path(__file__).parents[1] / "results" / "control.json"
WIDTH = 140  # of the table where no terminal says otherwise


@click.command(cls=command.Command)
@click.option(
    "--sizes", type=command.Sizes(), default="1000,5000,10000,50000", show_default=True, help="Pods, one column each."
)
@click.option("--agents", default=100, show_default=True, type=click.IntRange(1))
@click.option("--changes", default=50, show_default=True, type=click.IntRange(2), help="Of each kind.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Medians are over these.")
@click.option("--note", default="", help="Kept with the results, for example what else the machine did.")
@click.option("--output", default=RESULTS, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--target", type=names.UPSTREAM, help="HOST:PORT of a control plane that runs, instead of sizes of our own."
)
@click.option("--pid", type=click.IntRange(1), help="Its process.")
@click.option("--server-name", help="That its certificate holds.")
@click.option("--roots", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM: who issued that.")
@click.option(
    "--token",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A ServiceAccount's, for its audience.",
)
@click.option("--change", help="A shell command that changes one object of what it serves.")
def main(
    sizes: tuple[int, ...],
    agents: int,
    changes: int,
    rounds: int,
    note: str,
    output: Path,
    target: str | None,
    pid: int | None,
    server_name: str | None,
    roots: Path | None,
    token: Path | None,
    change: str | None,
) -> None:
    """Publish changes to simulated agents; CPU time, latency and memory by the number of pods."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        if target is None:
            columns = {str(size): _size(size, agents, changes, rounds, console) for size in sizes}
        else:
            if pid is None or server_name is None or roots is None or change is None:
                raise click.UsageError("--target needs --pid, --server-name, --roots and --change")
            there = Target(target, server_name, roots, token, pid, measure.by_command(change))
            columns = {target: measure.pushes(there, agents, changes, ("change",))}
    except (measure.Failed, cpu.ProcessGone) as error:
        raise click.ClickException(str(error)) from error
    console.print(report.table(columns, agents))
    write(output, columns, agents, changes, note)
    console.print(f"figures: {output}")


def _size(pods: int, agents: int, changes: int, rounds: int, console: Console) -> Figures:
    found: list[Figures] = []
    for number in range(1, rounds + 1):
        console.print(f"{pods} pods, round {number} of {rounds}", style="dim")
        figures = measure.parts(pods, agents, changes)
        with measure.serving(pods) as (target, ready):
            found.append(figures | ready | measure.pushes(target, agents, changes))
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def write(output: Path, columns: dict[str, Figures], agents: int, changes: int, note: str) -> None:
    result = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "note": note,
        "machine": machine.facts(),
        "agents": agents,
        "changes": changes,
        "medians": columns,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
