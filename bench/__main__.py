"""python -m bench: what the mesh costs, measured, drawn and written down. The composition root of the bench."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ambient.cli.errors import Lacking
from ambient.lab import LabError
from bench import command, ending
from bench.mesh import cpu, docs, loads, machine, modes, outputs, report, run

RESULTS = Path(__file__).parent / "results"
SCRATCH = Path(__file__).parents[1] / "build" / "bench"
FILE = "mesh.json"
LOCK = Path(tempfile.gettempdir()) / "ambient-bench.lock"
ROUNDS, SECONDS = 5, 2
WIDTH = 200  # of the tables where no terminal says otherwise
WHAT = (*loads.NAMES, run.IDLE)


@click.command(cls=command.Command)
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(1), help="Rounds of every mode.")
@click.option("--seconds", default=SECONDS, show_default=True, type=click.IntRange(1), help="Seconds of every load.")
@click.option("--modes", "chosen", default=",".join(modes.NAMES), show_default=True, help="What to compare.")
@click.option("--only", default=",".join(WHAT), show_default=True, help="What to measure.")
@click.option("--note", default="", help="Kept with the results, for example what else the machine did.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Where to write instead.")
@click.option("--redraw", is_flag=True, help="Measure nothing: pictures and tables of the results that are there.")
def main(rounds: int, seconds: int, chosen: str, only: str, note: str, output: Path | None, redraw: bool) -> None:
    """Measure what the mesh costs, in interleaved rounds, on two labs.

    All modes and all loads, in at least five rounds: results and pictures go to bench/results, and the tables of
    docs/performance.md are written anew. Anything less goes to build/bench, and leaves what is kept alone.
    """
    names, what = _among(chosen, modes.NAMES, "--modes"), _among(only, WHAT, "--only")
    whole = names == modes.NAMES and what == WHAT and rounds >= ROUNDS
    folder = output or (RESULTS if whole else SCRATCH)
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if redraw:
        found = _kept(folder / FILE)
    else:
        found = _measured(console, names, what, rounds, seconds) | {"note": note}
        (folder / FILE).write_text(json.dumps(found, indent=1) + "\n")
    report.show(console, found)
    _keep(console, found, folder)


def _kept(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"no results to draw: {file}: {error}; measure first, or name their place by --output"
        ) from error
    if not isinstance(found, dict) or "rounds" not in found:
        raise click.ClickException(f"no results to draw: {file} holds others than those of this bench")
    return found


def _measured(
    console: Console, names: tuple[str, ...], what: tuple[str, ...], rounds: int, seconds: int
) -> dict[str, Any]:
    try:
        machine.check(names)
        with command.told(LabError), _alone(), ending.in_order():
            return run.results(
                names=names,
                loads=tuple(load for load in loads.LOADS if load.name in what),
                with_idle=run.IDLE in what,
                rounds=rounds,
                seconds=seconds,
                tell=lambda text: console.print(text, style="dim"),
            )
    except machine.Missing as error:
        raise Lacking(str(error)) from error
    except (outputs.LoadFailed, cpu.ProcessGone) as error:
        raise click.ClickException(str(error)) from error


def _keep(console: Console, found: dict[str, Any], folder: Path) -> None:
    """The measurements are safe by now: what fails here can be done again with --redraw."""
    try:
        from bench.mesh import charts
    except ImportError as error:
        raise click.ClickException(f"no pictures: {error}; pip install -e '.[bench]', then --redraw") from error
    for path in [folder / FILE, *charts.draw(found, folder)]:
        console.print(f"written: {path}")
    if folder == RESULTS:
        docs.update(found)
        console.print(f"written: {docs.PAGE}")


def _among(chosen: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    wanted = {word.strip() for word in chosen.split(",")} - {""}
    if unknown := wanted - set(known):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose among {', '.join(known)}", param_hint=option)
    if not wanted:
        raise click.BadParameter(f"nothing is named: choose among {', '.join(known)}", param_hint=option)
    return tuple(name for name in known if name in wanted)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two at a time would measure each other, and the labs have fixed names."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise click.ClickException(f"another bench runs (it holds {LOCK}): wait for its end") from error
        yield


if __name__ == "__main__":
    main()
