"""`ambient check`: is this machine fit for an agent; with -f: are these manifests fit for a mesh. Only looks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ambient.cli import manifests, names
from ambient.cli import output as printing
from ambient.cli.errors import Exit
from ambient.model.mesh import MeshConfig


@click.command()
@manifests.option(required=False)
@click.option(
    "--root-namespace",
    type=names.NAMESPACE,
    default=MeshConfig().root_namespace,
    show_default=True,
    help="With -f: the mesh's.",
)
@printing.option
def check(files: tuple[Path, ...], root_namespace: str, output: str) -> None:
    """Check this machine, or with -f manifests, before anything is changed. Every finding comes with its fix.

    Manifests are judged as the mesh reads them; whether a lab can play them says `ambient lab check`. Exit code 0 when
    all is well, 1 when something is not.
    """
    if files:
        _manifests(files, root_namespace, output)
    else:
        _machine(output)


def _machine(output: str) -> None:
    from ambient.capture import check as capture

    findings = capture.findings()
    printing.rows([asdict(finding) for finding in findings], output, ("name", "ok", "found", "fix"), "findings")
    if not all(finding.ok for finding in findings):
        raise SystemExit(Exit.NO)


def _manifests(paths: tuple[Path, ...], root_namespace: str, output: str) -> None:
    from ambient.sources import files
    from ambient.sources.review import review

    found = review(*files.documents(paths), mesh=MeshConfig(root_namespace=root_namespace))
    manifests.report(paths, found.errors, found.notes, found.world, output)
