"""`ambient ca`: the roots everybody trusts, in a directory or in a cluster's Secret, and the steps that replace one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from ambient.cli import kubectl, names, numbers
from ambient.cli import output as printing
from ambient.cli.errors import Failure
from ambient.identity import profile, roots
from ambient.identity.ca import EmbeddedCA
from ambient.identity.ca_dir import CaUnusable
from ambient.identity.roots import Authority, RotationRefused

if TYPE_CHECKING:
    from ambient.control.authority import ClusterAuthority

COLUMNS = ("root", "role", "added_at", "not_after")
T = TypeVar("T")


class Kept(Protocol):
    """Where the CA is kept."""

    def load(self) -> Authority: ...

    def step(self, change: Callable[[Authority], Authority]) -> Authority: ...


Open = Callable[[], Kept]


class _InCluster:
    """In the Secret that the control plane's replicas share."""

    def __init__(self, namespace: str, trust_domain: str) -> None:
        self._namespace, self._trust_domain = namespace, trust_domain

    def load(self) -> Authority:
        from ambient.control.authority import ClusterAuthority

        return self._do(ClusterAuthority.load)

    def step(self, change: Callable[[Authority], Authority]) -> Authority:
        return self._do(lambda cluster: cluster.step(change))

    def _do(self, work: Callable[[ClusterAuthority], Awaitable[T]]) -> T:
        from ambient.control import api
        from ambient.control.authority import ClusterAuthority

        async def main() -> T:
            with kubectl.kubeconfig() as chosen:
                connected = api.connect(chosen)
            async with contextlib.aclosing(connected) as kubernetes:
                return await work(ClusterAuthority(kubernetes, self._namespace, self._trust_domain))

        try:
            return asyncio.run(main())
        except api.ApiError as error:
            raise Failure(str(error)) from error


@click.group()
@click.option("--ca-dir", type=click.Path(file_okay=False, path_type=Path), help="The agents' --ca-dir.")
@click.option("--cluster", is_flag=True, help="The CA of the cluster that kubectl talks to.")
@click.option(
    "--namespace",
    type=names.NAMESPACE,
    default="ambient-system",
    show_default=True,
    help="With --cluster: the control plane's.",
)
@click.option("--trust-domain", type=names.TRUST_DOMAIN, default="cluster.local", show_default=True, help="The mesh's.")
@click.pass_context
def ca(context: click.Context, ca_dir: Path | None, cluster: bool, namespace: str, trust_domain: str) -> None:
    """The roots everybody trusts. To replace one, take its steps with `rotate`, each when it is time."""
    context.obj = lambda: _kept(ca_dir, cluster, namespace, trust_domain)  # a step's --help needs none


def _kept(ca_dir: Path | None, cluster: bool, namespace: str, trust_domain: str) -> Kept:
    if cluster is (ca_dir is not None):
        raise click.UsageError("say where the CA is: either --ca-dir DIRECTORY or --cluster (before the step)")
    try:
        if ca_dir is None:
            return _InCluster(namespace, trust_domain)
        return EmbeddedCA.open(ca_dir, trust_domain, create=False)
    except (CaUnusable, ValueError) as error:
        raise Failure(str(error)) from error


@ca.command()
@printing.option
@click.pass_obj
def status(where: Open, output: str) -> None:
    """Which roots are trusted, and which one signs."""
    try:
        rows = where().load().rows()
    except (CaUnusable, ValueError) as error:
        raise Failure(str(error)) from error
    printing.rows(rows, output, COLUMNS, "roots")


def _at_once(command: Callable[..., None]) -> Callable[..., None]:
    text = "Even if not every agent trusts the new root: after a theft."
    return click.option("--at-once", is_flag=True, help=text)(command)


def _longest(command: Callable[..., None]) -> Callable[..., None]:
    text = "The longest a certificate may live: the old root is dropped when its last one is over."
    default = profile.MAX_LIFETIME / timedelta(hours=1)
    return click.option(
        "--longest-hours", type=numbers.Span(0, 87600, unit="hours"), default=default, show_default=True, help=text
    )(command)


@ca.command()
@click.option("--wait", is_flag=True, help="Wait until the next step is due, and go on until the old root is dropped.")
@_at_once
@_longest
@printing.of_change
@click.pass_obj
def rotate(where: Open, wait: bool, at_once: bool, longest_hours: float, output: str) -> None:
    """Take the next step that replaces the root.

    The steps: trust a new one, let it sign, drop the old one. Each is refused as long as it would part workloads from
    each other: run it again when it is time, or --wait.
    """
    kept, told = where(), printing.Told(output)
    settle, longest = timedelta(0) if at_once else roots.SETTLE, timedelta(hours=longest_hours)
    while True:
        try:
            authority = _taken(kept, lambda found: roots.advance(found, _now(), settle=settle, longest=longest))
        except RotationRefused as error:
            if not wait or error.until is None:
                raise Failure(str(error)) from error
            click.echo(f"waiting: {error}", err=output == "json")
            time.sleep(max((error.until - _now()).total_seconds(), 0.1))
            continue
        told.say(_meaning(authority))
        if not wait or _is_finished(authority):
            told.end(**_state(authority))
            return


@ca.command("add-root")
@printing.of_change
@click.pass_obj
def add_root(where: Open, output: str) -> None:
    """Step 1: trust a new root. Agents notice by themselves."""
    _step(where(), lambda found: roots.add_root(found, _now()), output)


@ca.command("switch-signer")
@_at_once
@printing.of_change
@click.pass_obj
def switch_signer(where: Open, at_once: bool, output: str) -> None:
    """Step 2: let the new root sign.

    The old one's key is destroyed.
    """
    settle = timedelta(0) if at_once else roots.SETTLE
    _step(where(), lambda found: roots.switch_signer(found, _now(), settle=settle), output)


@ca.command("drop-old-root")
@_longest
@printing.of_change
@click.pass_obj
def drop_old_root(where: Open, longest_hours: float, output: str) -> None:
    """Step 3: trust the old root no longer."""
    _step(where(), lambda found: roots.drop_old(found, _now(), longest=timedelta(hours=longest_hours)), output)


def _step(kept: Kept, change: Callable[[Authority], Authority], output: str) -> None:
    told = printing.Told(output)
    try:
        authority = _taken(kept, change)
    except RotationRefused as error:
        raise Failure(str(error)) from error
    told.say(authority.newest.id)
    told.end(**_state(authority))


def _state(authority: Authority) -> dict[str, object]:
    """For programs: the rows are those of `status`."""
    return {"finished": _is_finished(authority), "newest": authority.newest.id, "roots": authority.rows()}


def _is_finished(authority: Authority) -> bool:
    return authority.coming is None and authority.old is None


def _taken(kept: Kept, change: Callable[[Authority], Authority]) -> Authority:
    """Raises RotationRefused."""
    try:
        return kept.step(change)
    except (CaUnusable, ValueError) as error:
        raise Failure(str(error)) from error


def _meaning(authority: Authority) -> str:
    """What the step just taken means."""
    if authority.coming is not None:
        return f"root {authority.coming.id} is trusted, beside {authority.signer.id}, which signs; next: let it sign"
    if authority.old is not None:
        return f"root {authority.signer.id} signs; next: trust {authority.old.id} no longer"
    return f"root {authority.signer.id} is the only one; the rotation is finished"


def _now() -> datetime:
    return datetime.now(UTC)
