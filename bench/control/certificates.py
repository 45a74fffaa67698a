"""python -m bench.control.certificates: what certificates cost a replica, and whether a queue grows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench import command
from bench.control.crowd import Answers, Crowd
from bench.mesh import cpu, machine

RESULTS = Path(__file__).parents[1] / "results" / "certificates.json"
GOAL_PER_MINUTE = 1_000  # of a replica, without a queue growing
RATES = (1, 5, 10)  # times that
Figures = dict[str, float]


@click.command(cls=command.Command)
@click.option("--pods", type=click.IntRange(1), default=10_000, show_default=True, help="In the World.")
@click.option("--nodes", type=click.IntRange(1), default=100, show_default=True, help="Agents.")
@click.option("--seconds", type=click.IntRange(1), default=60, show_default=True, help="At each rate.")
@click.option("--note", default="", help="Kept with the results, for example what else the machine did.")
@click.option("--output", default=RESULTS, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def main(pods: int, nodes: int, seconds: int, note: str, output: Path) -> None:
    """Ask for certificates at 1,000 a minute and at multiples of it, whether answers come or not."""
    with _server(pods, nodes) as (pid, port, roots), tempfile.TemporaryDirectory(prefix="ambient-bench-") as tokens:
        found = asyncio.run(_measure(pid, Crowd(port, roots, Path(tokens), pods, nodes), seconds))
    table = Table(title=f"certificates, {pods} pods, {nodes} agents", box=None)
    for name in ("load", *next(iter(found.values()))):
        table.add_column(name.replace("_", " "), justify="left" if name == "load" else "right")
    for load, figures in found.items():
        table.add_row(load, *(f"{value:.2f}" for value in figures.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    result = {"taken_at": datetime.now(UTC).isoformat(timespec="seconds"), "note": note, "machine": machine.facts()}
    output.write_text(json.dumps({**result, "pods": pods, "agents": nodes, "figures": found}, indent=1) + "\n")


async def _measure(pid: int, crowd: Crowd, seconds: int) -> dict[str, Figures]:
    await crowd.warm()
    found = {}
    for factor in RATES:
        before = cpu.used([pid])
        answers = await crowd.at_rate(GOAL_PER_MINUTE / 60 * factor, seconds)
        found[f"{GOAL_PER_MINUTE * factor:,} a minute"] = _figures(answers, cpu.used([pid]) - before, seconds)
    return found


def _figures(answers: Answers, used_s: float, lasted_s: float) -> Figures:
    done = len(answers.seconds)
    return {
        "per_minute": done / lasted_s * 60,
        "median_ms": statistics.median(answers.seconds) * 1e3,
        "p99_ms": sorted(answers.seconds)[int(done * 0.99)] * 1e3,
        "most_under_way": answers.most_under_way,
        "cpu_ms_per_request": used_s / done * 1e3,
        "cores": used_s / lasted_s,
    }


@contextlib.contextmanager
def _server(pods: int, nodes: int) -> Iterator[tuple[int, int, Path]]:
    """Its process, its port, and the file of its roots."""
    words = [sys.executable, "-m", "bench.control.ca_server", str(pods), str(nodes)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        line = process.stdout.readline()
        if not line:
            raise click.ClickException("the server ended before it served; its words are above")
        said = json.loads(line)
        yield process.pid, int(said["port"]), Path(said["roots"])
        process.stdin.close()


if __name__ == "__main__":
    main()
