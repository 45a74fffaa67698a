"""`ambient ca`: the embedded CA's roots, and the steps that replace them. Works on the directory; needs no agent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import click

from ambient.cli import output as printing
from ambient.cli.errors import Failure
from ambient.identity import profile, roots
from ambient.identity.ca import EmbeddedCA
from ambient.identity.ca_dir import CaUnusable

T = TypeVar("T")
Open = Callable[[], EmbeddedCA]
COLUMNS = ("root", "role", "added_at", "not_after")


@click.group()
@click.option("--ca-dir", type=click.Path(path_type=Path), help="The agents' --ca-dir.  [required]")
@click.option("--trust-domain", default="cluster.local", show_default=True)
@click.pass_context
def ca(context: click.Context, ca_dir: Path | None, trust_domain: str) -> None:
    """The roots everybody trusts. To replace one: add-root, switch-signer, drop-old-root; each when it is time."""
    context.obj = lambda: _open(ca_dir, trust_domain)  # a step's --help needs no directory


def _open(ca_dir: Path | None, trust_domain: str) -> EmbeddedCA:
    if ca_dir is None:
        raise click.UsageError("Missing option '--ca-dir' (before the step).")
    try:
        return EmbeddedCA.open(ca_dir, trust_domain, create=False)
    except (CaUnusable, ValueError) as error:
        raise Failure(str(error)) from error


@ca.command()
@printing.option
@click.pass_obj
def status(authority: Open, output: str) -> None:
    """Which roots are trusted, and which one signs."""
    printing.rows(_told(authority().status), output, COLUMNS, "roots")


@ca.command("add-root")
@click.pass_obj
def add_root(authority: Open) -> None:
    """Step 1: trust a new root. Agents notice by themselves."""
    _step(authority().add_root)


@ca.command("switch-signer")
@click.option("--at-once", is_flag=True, help="Even if not every agent trusts the new root: after a theft.")
@click.pass_obj
def switch_signer(authority: Open, at_once: bool) -> None:
    """Step 2: let the new root sign; the old one's key is destroyed."""
    _step(lambda: authority().switch_signer(settle=timedelta(0) if at_once else roots.SETTLE))


@ca.command("drop-old-root")
@click.option("--longest-hours", type=click.FloatRange(0), default=profile.MAX_LIFETIME / timedelta(hours=1))
@click.pass_obj
def drop_old_root(authority: Open, longest_hours: float) -> None:
    """Step 3: trust the old root no longer. --longest-hours: the longest --certificate-hours of any agent."""
    _step(lambda: authority().drop_old_root(longest=timedelta(hours=longest_hours)))


def _step(take: Callable[[], str]) -> None:
    click.echo(_told(take))


def _told(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (roots.RotationRefused, CaUnusable) as error:
        raise Failure(str(error)) from error
