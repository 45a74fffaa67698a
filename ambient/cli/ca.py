"""`ambient ca`: the embedded CA's roots, and the steps that replace them. Works on the directory; needs no agent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import click

from ambient.cli import output as printing
from ambient.cli.errors import Failure
from ambient.identity import profile, roots
from ambient.identity.ca import EmbeddedCA
from ambient.identity.ca_dir import CaUnusable

COLUMNS = ("root", "role", "added_at", "not_after")


@click.group()
@click.option("--ca-dir", type=click.Path(path_type=Path), required=True, help="The agents' --ca-dir.")
@click.option("--trust-domain", default="cluster.local", show_default=True)
@click.pass_context
def ca(context: click.Context, ca_dir: Path, trust_domain: str) -> None:
    """The roots everybody trusts. To replace one: add-root, switch-signer, drop-old-root; each when it is time."""
    try:
        context.obj = EmbeddedCA.open(ca_dir, trust_domain, create=False)
    except (CaUnusable, ValueError) as error:
        raise Failure(str(error)) from error


@ca.command()
@printing.option
@click.pass_obj
def status(authority: EmbeddedCA, output: str) -> None:
    """Which roots are trusted, and which one signs."""
    printing.rows(authority.status(), output, COLUMNS, "roots")


@ca.command("add-root")
@click.pass_obj
def add_root(authority: EmbeddedCA) -> None:
    """Step 1: trust a new root. Agents notice by themselves."""
    _step(authority.add_root)


@ca.command("switch-signer")
@click.option("--at-once", is_flag=True, help="Even if not every agent trusts the new root: after a theft.")
@click.pass_obj
def switch_signer(authority: EmbeddedCA, at_once: bool) -> None:
    """Step 2: let the new root sign; the old one's key is destroyed."""
    _step(lambda: authority.switch_signer(settle=timedelta(0) if at_once else roots.SETTLE))


@ca.command("drop-old-root")
@click.option("--longest-hours", type=click.FloatRange(0), default=profile.MAX_LIFETIME / timedelta(hours=1))
@click.pass_obj
def drop_old_root(authority: EmbeddedCA, longest_hours: float) -> None:
    """Step 3: trust the old root no longer. --longest-hours: the longest --certificate-hours of any agent."""
    _step(lambda: authority.drop_old_root(longest=timedelta(hours=longest_hours)))


def _step(take: Callable[[], str]) -> None:
    try:
        click.echo(take())
    except (roots.RotationRefused, CaUnusable) as error:
        raise Failure(str(error)) from error
