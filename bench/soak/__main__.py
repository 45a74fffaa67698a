"""python -m bench.soak --minutes N: load and churn, and at the end nothing has grown. As root.

Exit code 1 where something has: a row of the table says what, and how much.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from pathlib import Path

import click

from ambient.cli import numbers
from ambient.lab import LabError
from bench import command, ending
from bench.disruption.loads import Tally
from bench.disruption.scene import MEMBERS, RATE, Scene, scene
from bench.soak import churn, report, sampling

RESULTS = Path(__file__).parents[1] / "results" / "soak.json"
SOME = click.IntRange(1)
EVERY_S = 3.0
LIFE_MS = 5_000  # of a member: tunnels end with their certificates, and should have nothing in them then
LIFETIME_H = 0.02  # of certificates: 72 s, renewed at half of it


def soak(
    found: Scene, seconds: float
) -> tuple[list[tuple[float, dict[str, float]]], list[dict[str, Tally]], churn.Came]:
    """Samples with their seconds since the beginning, what became of the load meanwhile, and what came and went."""
    samples, tallies, began = [], [], time.monotonic()
    with churn.going_on(found) as came:
        while (now := time.monotonic() - began) < seconds and not came.failure:
            samples.append((now, sampling.sample(found.mesh)))
            tallies.append(found.tally())
            time.sleep(max(0.0, EVERY_S - (time.monotonic() - began - now)))
    return samples, tallies, came


@click.command(cls=command.Command)
@click.option(
    "--minutes",
    default=60.0,
    show_default=True,
    type=numbers.Span(1, unit="minutes"),
    help="An hour for docs/reliability.md, five in `make test`.",
)
@click.option(
    "--members",
    default=MEMBERS // 2,
    type=click.IntRange(1),
    show_default=True,
    help="Connections that stay, on each path.",
)
@click.option(
    "--rate",
    default=RATE // 2,
    type=click.IntRange(1),
    show_default=True,
    help="New connections a second, on each path.",
)
@click.option("--write", is_flag=True, help="Keep the result in bench/results/soak.json.")
def main(minutes: float, members: int, rate: int, write: bool) -> None:
    """Load, and pods, policies and certificates that come and go; then nothing may have grown. As root."""
    command.need_root("to make a lab")
    with (
        command.told(LabError, AssertionError),
        ending.in_order(),
        scene("soak", certificate_hours=LIFETIME_H) as found,
        found.load(members=members, rate=rate, life_ms=LIFE_MS),
    ):
        samples, tallies, came = soak(found, minutes * 60)
    trends = report.trends(samples)
    opened, failed, lost, answered = (
        sum(getattr(tally, name) for each in tallies for tally in each.values())
        for name in ("came", "failed", "lost", "answered")
    )
    click.echo(
        f"{minutes:g} minutes: {came.pods} pods and {came.policies} policies came and went, certificates lived "
        f"{LIFETIME_H * 3600:.0f} s; {answered:,} messages, {lost} lost, {opened:,} new connections, {failed} failed"
    )
    click.echo(report.table(trends))
    if write:
        machine = {"kernel": platform.release(), "processors": os.cpu_count(), "members": members, "rate": rate}
        load = {"messages": answered, "lost": lost, "new": opened, "failed": failed}
        churned = {"pods": came.pods, "policies": came.policies, "certificate_s": LIFETIME_H * 3600}
        second = {name: dataclasses.asdict(trend) for name, trend in trends.items()}
        result = {"machine": machine, "minutes": minutes, "load": load, "came and went": churned, "second half": second}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    if grown := report.not_flat(trends):
        sys.exit(f"not flat: {', '.join(grown)}")
    if not came.pods or failed or lost:
        sys.exit("there was no churn, which proves nothing" if not came.pods else "the load had failures")


if __name__ == "__main__":
    main()
