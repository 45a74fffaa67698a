"""`ambient explain`: what would happen to a connection, asked of an agent and told in sentences. Only reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ambient.cli import names, sockets
from ambient.cli import output as printing
from ambient.cli.errors import Exit


@click.command()
@click.option("--from", "source", type=names.POD, required=True, help="The pod that would connect.")
@click.option("--to", type=names.PLACE, required=True, help="A service, VIP, pod name or any address, and a port.")
@sockets.options
@printing.option
def explain(source: str, to: str, node: str | None, lab: str | None, socket: Path | None, output: str) -> None:
    """Say which endpoints a connection could reach, as whom, and which policy allows or refuses it.

    Exit code 0 when every endpoint would accept it, 1 when one would not.
    """
    agents = sockets.find(node, lab, socket)
    asked = {"from": source, "to": to}
    first, found = sockets.ask_first(agents, "explain", **asked)
    nearest = [agent for agent in agents if agent.node == found.get("node") != first.node]
    if nearest:  # what its node has met of late it knows alone
        _, found = sockets.ask_first([*nearest, first], "explain", **asked)
    if output == "json":
        printing.as_json(found)
    else:
        click.echo("\n".join(sentences(found)))
    if found["verdict"] != "allow":
        raise SystemExit(Exit.NO)


def sentences(found: dict[str, Any]) -> Iterator[str]:
    """The explanation for people."""
    yield f"{found['from']} -> {found['to']}"
    yield f"  {found['resolved']}"
    yield f"  {found['plan']}"
    for row in found["endpoints"]:
        yield from _endpoint(row)
    yield {
        "allow": "allowed",
        "deny": "refused",
        "depends": "depends on the endpoint: not all of them accept it",
    }[found["verdict"]]


def _endpoint(row: dict[str, Any]) -> Iterator[str]:
    who = f" (pod {row['workload']} on node {row['node']})" if row["workload"] else ""
    if not row["workload"] and row["path"] != "none":
        who = " (outside the mesh)"
    how = {
        "tunnel": "in a tunnel with mutual TLS",
        "direct": "directly, on one node: the kernel knows both ends, nothing is encrypted",
        "plaintext": "in plaintext",
        "none": "not carried at all",
    }
    spare = "" if row["weight"] else ", only when others fail"
    yield f"  to {row['address']}{who}, {how[row['path']]}{spare}"
    if row["path"] in ("tunnel", "direct"):
        yield f"    as {row['client_identity']}, to {row['server_identity']}"
    if row["mtls"]:
        yield f"    mutual TLS: {row['mtls']}"
    by = f" by {row['rule']}" if row["rule"] else ""
    reason = f" ({row['reason']})" if row["reason"] else ""
    why = f": {row['why']}" if row["why"] else ""
    yield f"    {row['verdict']}{by}{reason}{why}"
    for line in row["dry_run"]:
        yield f"    dry run: {line}"
