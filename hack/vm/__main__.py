"""`python -m hack.vm`: what `make test-vm` runs. As root: the machines read this one's files as they are."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from ambient.cli import numbers, streams
from hack.vm import VmError, kernel, lane, layout, selection


@click.group(cls=streams.Group)
def main() -> None:
    """Tests on the oldest kernel that is promised, in virtual machines."""


@main.command()
def fetch() -> None:
    """Fetch the kernel into the cache, unless it is there."""
    click.echo(kernel.fetch().image)


@main.command()
@click.option("--all", "everything", is_flag=True, help="The whole kernel lane, not only what hack/vm/tests.txt lists.")
@click.option(
    "--machines", type=click.IntRange(1), default=layout.MACHINES, show_default=True, help="How many share the tests."
)
@click.option("--limit", type=numbers.Span(1), help="Seconds after which the machines are ended.")
@click.argument("tests", nargs=-1)
def test(everything: bool, machines: int, limit: float | None, tests: tuple[str, ...]) -> None:
    """Run TESTS, as pytest knows them."""
    if os.geteuid() != 0:
        raise VmError("the machines read this one's files as they are, which takes root: run this as root")
    limit = limit or (layout.LIMIT_ALL_S if everything else layout.LIMIT_S)
    sys.exit(0 if lane.run(selection.chosen(everything, tests), machines=machines, limit_s=limit) else 1)


if __name__ == "__main__":
    try:
        main()
    except (VmError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"vm: {error}")
