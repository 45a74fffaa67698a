"""`python -m hack.kube VERB`: what `make kube-up`, `make kube-down` and people at a shell use. Run as root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from ambient.cli import streams
from hack.kube import Cluster, ClusterError, components, down, layout

NODE = click.Choice([node.name for node in layout.nodes()])


@click.group(cls=streams.Group)
def main() -> None:
    """A real Kubernetes of two nodes on this machine, out of namespaces."""


def need_root() -> None:
    """All but building: what is root's would seem not to be there."""
    if os.geteuid() != 0:
        raise ClusterError("a cluster is made of namespaces, which are root's: run this as root")


@main.command()
def build() -> None:
    """Build Kubernetes' programs into the cache, unless they are there."""
    components.build()


@main.command()
@click.argument("images", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def up(images: tuple[Path, ...]) -> None:
    """Bring the cluster up, with IMAGES (OCI archives) on every node."""
    need_root()
    Cluster().up(images)
    click.echo(f"The cluster is up. {layout.KUBECTL} get nodes; logs are in {layout.LOGS}")


@main.command("down")
def take_down() -> None:
    """End the cluster and remove every trace of it."""
    need_root()
    click.echo("The cluster is gone." if down() else "There is no cluster.")


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(images: tuple[Path, ...]) -> None:
    """Give every node IMAGES (OCI archives)."""
    need_root()
    for image in images:
        Cluster().load(image)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", type=NODE)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def node(name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on the node NAME."""
    need_root()
    words = [*Cluster().nodes[name].entrance(), *command]
    os.execvp(words[0], words)


@main.command()
@click.argument("name", type=NODE)
def restart(name: str) -> None:
    """Cut the power of the node NAME, and start it again."""
    need_root()
    Cluster().restart(name)


if __name__ == "__main__":
    try:
        main()
    except (ClusterError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"kube: {error}")
