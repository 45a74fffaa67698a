"""python -m bench.engine: what carrying bytes costs, measured. The composition root of the bench."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from ambient.lab import LabError
from bench.engine import cpu, machine, measure, outputs, report, sides
from bench.engine.measure import Round

RESULTS = Path(__file__).parents[1] / "results" / "engine.json"
WIDTH = 160  # of the table where no terminal says otherwise


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds of every side.")
@click.option("--seconds", default=2, show_default=True, type=click.IntRange(1), help="Seconds of every load.")
@click.option("--sides", "chosen", default=",".join(sides.NAMES), show_default=True, help="What to measure.")
@click.option("--note", default="", help="Kept with the results, for example what else the machine did.")
@click.option("--output", default=RESULTS, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def main(rounds: int, seconds: int, chosen: str, note: str, output: Path) -> None:
    """Measure a pair of engines (agents included) and a pair of Envoys by CPU time, in interleaved rounds."""
    names = tuple(name for name in sides.NAMES if name in chosen.split(","))
    if unknown := set(chosen.split(",")) - set(names):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose among {', '.join(sides.NAMES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that the labs are taken down
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        machine.check(names)
        found = _measure(names, rounds, seconds, console)
    except (machine.Missing, outputs.LoadFailed, cpu.ProcessGone, LabError) as error:
        raise click.ClickException(str(error)) from error
    _write(output, found, names, seconds, note)
    _show(console, found, output)


def _measure(names: tuple[str, ...], rounds: int, seconds: int, console: Console) -> list[Round]:
    """A B C A B C ...: the machine's moods hit all sides alike."""
    found: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="ambient-bench-") as folder, sides.standing(names, Path(folder)) as all_:
        for number in range(1, rounds + 1):
            for side in all_:
                console.print(f"round {number} of {rounds}: {side.name}", style="dim")
                found.append(measure.round_of(side, number, seconds))
    return found


def _write(output: Path, found: list[Round], names: tuple[str, ...], seconds: int, note: str) -> None:
    result = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "note": note,
        "machine": machine.facts(),
        "versions": machine.versions(names),
        "seconds_per_load": seconds,
        "medians": {
            row.name: {side: asdict(figure) for side, figure in row.figures.items()} for row in report.rows(found)
        },
        "rounds": [each.as_json() for each in found],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")


def _show(console: Console, found: list[Round], output: Path) -> None:
    console.print(report.table(report.rows(found)))
    for line in report.errors(found):
        console.print(line, style="bold red")
    console.print(f"every round: {output}")


if __name__ == "__main__":
    main()
