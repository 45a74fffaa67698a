"""python -m bench.disruption: each event under load, what it cost, and whether the goals were reached. As root."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import click

from ambient.lab import LabError
from bench import command, ending
from bench.disruption import events, report
from bench.disruption.scene import MEMBERS, RATE, scene

RESULTS = Path(__file__).parents[1] / "results" / "disruption.json"
SOME = click.IntRange(1)


@click.command(cls=command.Command)
@click.option("--members", default=MEMBERS, type=SOME, show_default=True, help="Connections that stay, on each path.")
@click.option("--rate", default=RATE, type=SOME, show_default=True, help="New connections a second, on each path.")
@click.option("--write", is_flag=True, help="Keep the result in bench/results/disruption.json.")
def main(members: int, rate: int, write: bool) -> None:
    """What each upgrade, crash and outage costs connections under load. As root.

    Exit code 1 where a goal was missed; what was missed is told.
    """
    command.need_root("to make a lab")
    with command.told(LabError, AssertionError), ending.in_order(), scene("benchdisruption") as found:
        outcomes = [events.measure(found, event, members=members, rate=rate) for event in events.EVENTS]
    click.echo(report.table(outcomes))
    if write:
        machine = {"kernel": platform.release(), "processors": os.cpu_count(), "members": members, "rate": rate}
        RESULTS.write_text(json.dumps({"machine": machine, "events": report.as_json(outcomes)}, indent=1) + "\n")
    missed = [f"{outcome.event.name}: {what}" for outcome in outcomes for what in outcome.missed()]
    for what in missed:
        click.echo(what, err=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
