"""How commands tell what they think of manifests: the same words and the same JSON for the mesh and for the lab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from ambient.cli import output as printing
from ambient.cli.errors import Exit
from ambient.model.world import World
from ambient.sources.errors import BadManifest, Note

F = TypeVar("F", bound=Callable[..., Any])
COUNTED = ("nodes", "namespaces", "workloads", "services", "policies", "peer_authentications", "traffic_policies")
READABLE = click.Path(exists=True, allow_dash=True, path_type=Path)


def option(*, required: bool) -> Callable[[F], F]:
    """`-f FILE`, as the argument `files`."""
    what = "A manifest, a directory of them, or - for the standard input; may be repeated."
    more = "" if required else "  Needs no root and no agent."
    return click.option("-f", "--file", "files", multiple=True, required=required, type=READABLE, help=what + more)


def report(
    files: Sequence[Path], errors: Sequence[BadManifest], notes: Sequence[Note], world: World, output: str
) -> None:
    """Print, and end with exit code 1 if there are errors. `world`: what the manifests describe."""
    counts = {} if errors else {kind: len(getattr(world, kind)) for kind in COUNTED}
    if output == "json":
        printing.as_json(
            {
                "ok": not errors,
                "errors": [asdict(error) | {"text": str(error)} for error in errors],
                "notes": [asdict(note) | {"text": str(note)} for note in notes],
                "counts": counts,
            }
        )
    else:
        for note in notes:
            click.echo(f"Note: {note}", err=True)
        for error in errors:
            click.echo(str(error), err=True)
        if not errors:
            found = ", ".join(printing.many(count, kind.replace("_", " ")) for kind, count in counts.items() if count)
            verb = "is" if len(files) == 1 else "are"
            click.echo(f"{', '.join(map(str, files))} {verb} fine: {found or 'nothing in it'}")
    if errors:
        raise SystemExit(Exit.NO)
