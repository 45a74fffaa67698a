"""python -m bench.direct: CPU time per connection between two pods of a node, with and without our programs. As root.

The pods are joined by a veth pair; one thread connects, accepts and closes, so its CPU time is all there is. A round
measures: no programs; programs, in pods that are not enrolled; enrolled, to the pod's address directly; to a VIP with
as many endpoints as a verdict may have. The table has the medians of the rounds.
"""

from __future__ import annotations

import contextlib
import statistics

import click

from ambient.capture import CaptureError
from bench import command
from bench.direct import scene


@click.command(cls=command.Command)
@click.option("--rounds", default=31, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """What our programs cost a connection of a process outside of the mesh, and a direct one of an enrolled pod."""
    command.need_root("to make pods and load programs")
    found: dict[str, list[float]] = {case: [] for case in scene.CASES}
    with command.told(CaptureError), contextlib.ExitStack() as stack:
        folder, cgroup = stack.enter_context(scene.place())
        for case in scene.CASES * rounds:
            with scene.prepared(case, cgroup, folder / "bpf") as dial:
                found[case].append(scene.measure(folder / "loop", cgroup, dial))
    for case, values in found.items():
        click.echo(f"{case:20} {statistics.median(values) / 1000:6.2f} us ({min(values):.0f} to {max(values):.0f} ns)")


if __name__ == "__main__":
    main()
