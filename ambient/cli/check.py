"""`ambient check`: is this machine fit for an agent; with -f: are these manifests fit for a mesh. Only looks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ambient.cli import output as printing
from ambient.cli.errors import Exit
from ambient.model.mesh import MeshConfig

COUNTED = ("nodes", "namespaces", "workloads", "services", "policies", "peer_authentications")


@click.command()
@click.option(
    "-f",
    "--file",
    "manifests",
    type=click.Path(exists=True, path_type=Path),
    help="Check these manifests (a file or a directory) instead of the machine; needs no root and no agent.",
)
@click.option("--root-namespace", default=MeshConfig().root_namespace, show_default=True, help="With -f: the mesh's.")
@printing.option
def check(manifests: Path | None, root_namespace: str, output: str) -> None:
    """Check this machine, or manifests, before anything is changed. Every finding that is not ok comes with its fix.

    Exit code 0 when all is well, 1 when something is not.
    """
    well = _machine(output) if manifests is None else _manifests(manifests, root_namespace, output)
    if not well:
        raise SystemExit(Exit.NO)


def _machine(output: str) -> bool:
    from ambient.capture import check as capture

    findings = capture.findings()
    rows = [asdict(finding) for finding in findings]
    printing.rows(rows, output, ("name", "ok", "found", "fix"), "findings")
    return all(finding.ok for finding in findings)


def _manifests(path: Path, root_namespace: str, output: str) -> bool:
    from ambient.sources import directory

    errors: list[str] = []
    counts: dict[str, int] = {}
    try:
        world = directory.load(path, MeshConfig(root_namespace=root_namespace))
        counts = {kind: len(getattr(world, kind)) for kind in COUNTED}
    except directory.SourceError as error:
        errors = list(error.errors)
    if output == "json":
        printing.as_json({"ok": not errors, "errors": errors, "counts": counts})
    elif errors:
        click.echo("\n".join(errors), err=True)
    else:
        found = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items() if count)
        click.echo(f"{path} is fine: {found or 'nothing in it'}")
    return not errors
