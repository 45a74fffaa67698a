"""`ambient lab`: a cluster of network namespaces on this machine. Says what ambient.lab does; does nothing itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ambient.cli import output as printing
from ambient.cli.errors import Failure, Lacking
from ambient.lab import Environment, Lab, LabError

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Translates the lab's errors into the command line's."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Environment as error:
            raise Lacking(str(error)) from error
        except LabError as error:
            raise Failure(str(error)) from error


@click.group(cls=_Group)
def lab() -> None:
    """A cluster of network namespaces on this machine.

    It takes plain Kubernetes manifests: nodes are network namespaces on one bridge, pods are network namespaces behind
    them and run programs of this machine, every node has a real agent. Needs root.
    """


def _common(command: F) -> F:
    named: Callable[[F], F] = click.option(
        "--name", default="lab", show_default=True, help="Which lab; several can exist side by side."
    )
    return named(command)


def _changing(command: F) -> F:
    timeout = click.option(
        "--timeout", default=60.0, show_default=True, help="Seconds for pods to be ready and the mesh to converge."
    )
    return _common(timeout(command))


def _files(command: F) -> F:
    files = click.option(
        "-f",
        "--file",
        "file",
        required=True,
        type=click.Path(exists=True, path_type=Path),
        help="A manifest, or a directory.",
    )
    return files(command)


@lab.command()
@_files
@click.option("--no-mesh", is_flag=True, help="Without agents: a plain cluster.")
@_changing
def up(file: Path, no_mesh: bool, name: str, timeout: float) -> None:
    """Make a lab; returns when all pods are ready and the mesh has converged."""
    Lab(name).up(file, mesh=not no_mesh, timeout=timeout)
    click.echo(f"lab {name} is up; look around with: ambient lab status --name {name}", err=True)


@lab.command()
@_files
@_changing
def apply(file: Path, name: str, timeout: float) -> None:
    """Create or change what manifests describe."""
    Lab(name).apply(file, timeout=timeout)


@lab.command()
@_files
@_changing
def delete(file: Path, name: str, timeout: float) -> None:
    """Delete what manifests describe."""
    Lab(name).delete(file, timeout=timeout)


@lab.command()
@click.argument("target")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@_changing
def label(target: str, changes: tuple[str, ...], name: str, timeout: float) -> None:
    """Set (KEY=VALUE) or take away (KEY-) labels of ns/NAME or pod/NAMESPACE/NAME."""
    Lab(name).label(target, *changes, timeout=timeout)


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@_common
@click.argument("pod", metavar="NAMESPACE/POD")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(pod: str, command: tuple[str, ...], name: str) -> None:
    """Run a program inside a pod: ambient lab exec NAMESPACE/POD -- CMD. Its exit code is ours."""
    try:
        Lab(name).become(pod, command)
    except OSError as error:
        click.echo(f"Error: {command[0]} cannot be run in {pod}: {error}", err=True)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)  # the shells' convention


@lab.command()
@click.argument("target", metavar="NAMESPACE/POD|node/NAME")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@_common
def logs(target: str, follow: bool, name: str) -> None:
    """Print a pod's log, or that of a node's agent."""
    path = Lab(name).log_file(target)
    if follow:  # tail waits for inotify's word, and ends with us
        os.execvp("tail", ["tail", "-n", "+1", "-F", str(path)])
    with path.open("rb") as file:
        while chunk := file.read(1 << 16):
            sys.stdout.buffer.write(chunk)


@lab.command()
@_common
@printing.option
def status(name: str, output: str) -> None:
    """Show nodes, pods and services."""
    found = Lab(name).status()
    if output == "json":
        printing.as_json(found)
        return
    for what, columns in {
        "nodes": ["name", "underlay", "agent_pid", "engine_pid", "ready", "netns"],
        "pods": ["name", "node", "ips", "ready", "enrolled", "restarts", "netns"],
        "services": ["name", "vips", "ports"],
    }.items():
        click.echo(f"{what.upper()}")
        printing.rows([{"name": key, **row} for key, row in found[what].items()], "table", columns, what)
        click.echo()


@lab.command()
@_common
def down(name: str) -> None:
    """Remove a lab and everything it made, whatever died before."""
    if not Lab(name).down():
        click.echo(f"there is no lab {name}: nothing to do", err=True)


@lab.command(hidden=True)
@click.argument("options")
def run(options: str) -> None:
    """The daemon; started by `up`."""
    from ambient.lab import main

    main.run(options)


@lab.command()
@click.option("-f", "--file", default="examples/shop.yaml", type=click.Path(exists=True, path_type=Path), hidden=True)
@click.option("--name", default="demo", show_default=True, help="The lab it makes, and removes at the end.")
def demo(file: Path, name: str) -> None:
    """Show what the mesh does: six claims, each with its proof. Exit code 0 only if every one held."""
    from ambient.lab import demo as show

    if not show.run(file, name):
        raise Failure("a claim did not hold")
