"""python -m bench.direct.programs: which program runs how often in a connection's life, and for how long. As root.

By the kernel's own clock, in the cases of `python -m bench.direct`. To read it twice costs some 50 ns, and they are in
the time of each run: what a program seems to take that does nothing is that.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from ambient.capture import CaptureError
from bench import command
from bench.direct import scene

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
Counts = dict[int, tuple[str, int, int]]  # name, runs, ns; by program's id
CONNECTIONS = 2 * scene.CALLS  # of measure()


@click.command(cls=command.Command)
def main() -> None:
    """What each program takes of a connection outside of the mesh, and of a direct one."""
    command.need_root("to make pods and load programs")
    with command.told(CaptureError), scene.place() as (folder, cgroup), _counting():
        for case in scene.CASES[1:]:
            others = _counts().keys()
            with scene.prepared(case, cgroup, folder / "bpf") as dial:
                scene.measure(folder / "loop", cgroup, dial)
                mine = [count for number, count in _counts().items() if number not in others]
            click.echo(f"{case}: {sum(count[2] for count in mine) / CONNECTIONS:.0f} ns a connection")
            for name, runs, ns in sorted(mine, key=lambda count: -count[2]):
                often, each = runs / CONNECTIONS, ns / max(runs, 1)
                if often >= 1:
                    click.echo(f"    {name:16} {often * each:6.0f} ns: {often:5.2f} runs of {each:5.0f} ns")


@contextlib.contextmanager
def _counting() -> Iterator[None]:
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        yield
    finally:
        STATISTICS.write_text(before)


def _counts() -> Counts:
    said = json.loads(subprocess.check_output(["bpftool", "-j", "prog", "show"]))
    return {each["id"]: (each.get("name", ""), each.get("run_cnt", 0), each.get("run_time_ns", 0)) for each in said}


if __name__ == "__main__":
    main()
