"""`ambient lab`: a cluster of network namespaces on this machine. Says what ambient.lab does; does nothing itself."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from ambient import config
from ambient.cli import manifests, names
from ambient.cli import output as printing
from ambient.cli.errors import Failure, Lacking, Nobody, warn
from ambient.lab import Environment, Gone, Lab, LabError, Misused, NotReady, Refused
from ambient.model.mesh import MeshConfig

F = TypeVar("F", bound=Callable[..., Any])
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Group(click.Group):
    """Translates the lab's errors into the command line's."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Misused as error:
            raise click.UsageError(str(error)) from error
        except Environment as error:
            raise Lacking(str(error)) from error
        except Gone as error:
            raise Nobody(str(error)) from error
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
        "--lab",
        "--name",
        type=names.LAB,
        default=config.LAB,
        show_default=True,
        envvar=names.ENV,
        show_envvar=True,
        help="Which lab; several can exist side by side.",
    )
    return named(command)


def _changing(command: F) -> F:
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=60.0,
        show_default=True,
        help="Seconds for pods to be ready and the mesh to converge.",
    )
    return _common(timeout(command))


@lab.command()
@manifests.option(required=True)
@click.option("--no-mesh", is_flag=True, help="Without agents: a plain cluster.")
@click.option("--keep", is_flag=True, help="What does not get ready in time stays, to be looked at.")
@_changing
@printing.of_change
def up(files: tuple[Path, ...], no_mesh: bool, keep: bool, lab: str, timeout: float, output: str) -> None:
    """Make a lab; returns when all pods are ready and the mesh has converged.

    If that fails, or is interrupted, nothing is left of it.
    """
    there = f" --lab {lab}" if lab != config.LAB else ""
    with _interruptible(), _told_of_manifests():
        try:
            remarks = Lab(lab).up(files, mesh=not no_mesh, keep=keep, timeout=timeout)
        except NotReady as error:
            what = (
                f"It was kept: look with `ambient lab status{there}`, remove it with `ambient lab down{there}`."
                if keep
                else "Nothing was left of it; with --keep it stays, to be looked at."
            )
            raise Failure(f"{error}\n{what}") from error
    _done("up", lab, remarks, output)
    click.echo(f"lab {lab!r} is up; look around with: ambient lab status{there}", err=True)


@lab.command()
@manifests.option(required=True)
@_changing
@printing.of_change
def apply(files: tuple[Path, ...], lab: str, timeout: float, output: str) -> None:
    """Create or change what manifests describe; returns when that is ready and the mesh has converged."""
    with _lasting("take it away with `ambient lab delete -f`"), _told_of_manifests():
        remarks = Lab(lab).apply(files, timeout=timeout)
    _done("apply", lab, remarks, output)


@lab.command()
@manifests.option(required=True)
@_changing
@printing.of_change
def delete(files: tuple[Path, ...], lab: str, timeout: float, output: str) -> None:
    """Delete what manifests describe."""
    with _lasting("what was deleted is gone"):
        remarks = Lab(lab).delete(files, timeout=timeout)
    _done("delete", lab, remarks, output)


@lab.command()
@click.argument("target", type=names.TARGET, metavar="TARGET")
@click.argument("changes", nargs=-1, required=True, type=names.CHANGE, metavar="KEY=VALUE|KEY-...")
@_changing
@printing.of_change
def label(target: str, changes: tuple[str, ...], lab: str, timeout: float, output: str) -> None:
    """Set (KEY=VALUE) or take away (KEY-) labels.

    TARGET: ns/NAME, node/NAME, pod/NAMESPACE/NAME or service/NAMESPACE/NAME.
    """
    with _lasting("the labels are changed"):
        remarks = Lab(lab).label(target, *changes, timeout=timeout)
    _done("label", lab, remarks, output)


@lab.command()
@manifests.option(required=True)
@printing.option
def check(files: tuple[Path, ...], output: str) -> None:
    """Say what `up` would say of manifests; makes nothing, needs no root and no lab.

    Exit code 0 when a lab can play them, 1 when it cannot.
    """
    from ambient.lab import admission, cluster
    from ambient.sources import files as reading
    from ambient.sources.review import review

    documents, broken = reading.documents(files)
    found = admission.judge(cluster.INITIAL, documents, broken, new_uid=str)
    manifests.report(files, found.errors, found.notes, review(documents, mesh=MeshConfig()).world, output)


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@_common
@click.argument("pod", type=names.POD, metavar="NAMESPACE/POD")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(pod: str, command: tuple[str, ...], lab: str) -> None:
    """Run a program inside a pod: ambient lab exec NAMESPACE/POD -- CMD.

    It takes this process's place: terminal, signals and exit code are its own. 127: there is no such program; 126: it
    cannot be run.
    """
    try:
        Lab(lab).become(pod, command)
    except OSError as error:
        click.echo(f"Error: {command[0]} cannot be run in {pod}: {error.strerror}", err=True)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)  # the shells' convention


@lab.command()
@click.argument("target", type=names.LOG, metavar="NAMESPACE/POD|node/NAME")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written.")
@_common
def logs(target: str, follow: bool, lab: str) -> None:
    """Print a pod's log, or that of a node's agent."""
    path = Lab(lab).log_file(target)
    if follow:  # tail waits for inotify's word, and ends with us
        os.execvp("tail", ["tail", "-n", "+1", "-F", str(path)])
    with path.open("rb") as file:
        while chunk := file.read(1 << 16):
            sys.stdout.buffer.write(chunk)


@lab.command()
@_common
@printing.option
def status(lab: str, output: str) -> None:
    """Show nodes, pods and services. A dash: not known, its agent does not answer."""
    found = Lab(lab).status()
    if output == "json":
        printing.as_json(found)
        return
    why = ["why"] if any(pod["why"] for pod in found["pods"].values()) else []
    not_direct = ["not_direct"] if any(node["not_direct"] for node in found["nodes"].values()) else []
    for what, columns in {
        "nodes": ["name", "underlay", "agent_pid", "engine_pid", "ready", "netns", *not_direct],
        "pods": ["name", "node", "ips", "ready", "enrolled", "restarts", *why],
        "services": ["name", "vips", "ports"],
    }.items():
        click.echo(f"{what.upper()}")
        printing.rows([{"name": key, **row} for key, row in found[what].items()], "table", columns, what)
        click.echo()


@lab.command()
@_common
@printing.of_change
def down(lab: str, output: str) -> None:
    """Remove a lab and everything it made, whatever died before."""
    existed = Lab(lab).down()
    if output == "json":
        printing.as_json({"did": "down", "lab": lab, "existed": existed})
    elif not existed:
        there = ", ".join(names.labs())
        click.echo(f"there is no lab {lab!r}: nothing to do{f'; labs that exist: {there}' if there else ''}", err=True)


@lab.command(hidden=True)
@click.argument("options")
def run(options: str) -> None:
    """The daemon; started by `up`."""
    from ambient.lab import main

    main.run(options)


@lab.command()
@click.option("-f", "--file", default="examples/shop.yaml", type=click.Path(exists=True, path_type=Path), hidden=True)
@click.option("--lab", type=names.LAB, default="demo", show_default=True, help="The lab it makes and removes.")
def demo(file: Path, lab: str) -> None:
    """Show what the mesh does: seven claims, each with its proof. Exit code 0 only if every one held."""
    from ambient.lab import demo as show

    with _interruptible():
        held = show.run(file, lab)
    if not held:
        raise Failure("a claim did not hold")


def _done(what: str, lab: str, remarks: list[str], output: str) -> None:
    if output == "json":
        printing.as_json({"did": what, "lab": lab, "notes": remarks})
        return
    for remark in remarks:
        click.echo(f"Note: {remark}", err=True)


@contextlib.contextmanager
def _told_of_manifests() -> Iterator[None]:
    try:
        yield
    except Misused:
        raise
    except Refused as error:
        raise Failure(f"{error}\nNothing was changed. `ambient lab check -f FILE` tells without a lab.") from error


@contextlib.contextmanager
def _lasting(state: str) -> Iterator[None]:
    """Of a change that is made, then waited for: how things are if that fails."""
    try:
        yield
    except NotReady as error:
        raise Failure(f"{error}\nThe change was made and stays: {state}.") from error
    except KeyboardInterrupt:
        warn("not waited for any longer; `ambient lab status` shows what became of the change")
        sys.exit(128 + signal.SIGINT)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A signal ends what goes on in here as an error does. Only the first one: what is undone then, is undone whole."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish is kept
            signal.signal(number, end)
    try:
        yield
    except SystemExit:
        click.echo("interrupted: nothing was left of it", err=True)
        raise
