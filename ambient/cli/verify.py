"""`ambient verify`: proves, or says why it cannot, that mutual TLS is on for a namespace. Asks agents; judges in proof.

What the agents do for it, plaintext connections included, changes nothing and reaches no application.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ambient.cli import kubectl, names, sockets
from ambient.cli import output as printing
from ambient.cli.errors import Exit
from ambient.observe import proof

PODS = ("pod", "node", "captured", "identity", "certificate_until", "mtls", "plaintext_tried")
PATHS = ("direction", "path", "ended", "open", "last", "last_peer")


@click.command()
@click.argument("namespace", type=names.NAMESPACE)
@sockets.options
@printing.option
def verify(namespace: str, node: str | None, lab: str | None, socket: Path | None, output: str) -> None:
    """Prove that mutual TLS is on for NAMESPACE: no TCP connection reaches its pods without.

    For every pod: it is captured, its certificate is valid, its ports are STRICT, nothing is excluded, no connection
    of it is open in plaintext, and one that its node's agent tries in plaintext is refused. Exit code 0 when all of it
    is proven; 1 when not: each reason is named with what to do.
    """
    agents = sockets.find(node, lab, socket)
    expected = kubectl.pods_of(namespace) if sockets.in_cluster() and node is None else None
    testimonies = [said for _, said in sockets.ask(agents, "evidence", namespace=namespace)]
    found = proof.judge(namespace, testimonies, datetime.now(UTC), expected=expected, node=node)
    if output == "json":
        printing.as_json({"proven": found.proven, **asdict(found)})
    else:
        _tell(found)
    if not found.proven:
        raise SystemExit(Exit.NO)


def _tell(found: proof.Proof) -> None:
    if found.pods:
        printing.table([_row(pod) for pod in found.pods], PODS)
        click.echo()
    if found.paths:
        click.echo("Connections since the agents started:")
        printing.table(found.paths, PATHS)
        click.echo()
    click.echo("\n".join(_sentences(found)))


def _row(pod: Mapping[str, Any]) -> dict[str, object]:
    certificate = pod.get("certificate")
    return {
        "pod": pod["pod"],
        "node": pod["node"],
        "captured": pod.get("state") == "captured",
        "identity": pod["identity"],
        "certificate_until": certificate["not_after"] if certificate else "",
        "mtls": [f"{mode['port']}={mode['mode']}" if mode["port"] else mode["mode"] for mode in pod["modes"]],
        "plaintext_tried": [f"{knock['address']} {knock['outcome']}" for knock in pod["knocks"]],
    }


def _sentences(found: proof.Proof) -> Iterator[str]:
    for note in found.notes:
        yield f"Note: {note}"
    alike: dict[tuple[str, str], list[str]] = {}
    for problem in found.problems:
        alike.setdefault((problem.found, problem.todo), []).append(problem.about)
    for (what, todo), about in alike.items():
        yield f"Not proven: {proof.first(about)}: {what}"
        yield f"  {todo}"
    if found.proven:
        nodes = len({pod["node"] for pod in found.pods})
        on_the_node = ", or from their own node without the kernel's proof of who it is"
        on_the_node = on_the_node if proof.direct(found.pods) else ""
        yield (
            f"Proven: mutual TLS is on for namespace {found.namespace}, {_many(len(found.pods), 'pod')} on "
            f"{_many(nodes, 'node')}: no TCP connection reaches them without{on_the_node}."
        )
    else:
        why = _many(len(found.problems), "reason")
        yield f"Mutual TLS is not proven for namespace {found.namespace}: {why}, above."


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
