"""`ambient get`: what agents know, several nodes merged. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ambient.cli import output as printing
from ambient.cli import sockets

Row = dict[str, Any]
Answers = list[tuple[sockets.Agent, list[Row]]]

COLUMNS = {
    "workloads": ("node", "namespace", "name", "addresses", "ready", "enrolled", "state", "identity"),
    "services": ("namespace", "name", "vips", "ports", "ready", "not_ready", "distribution"),
    "policies": ("kind", "namespace", "name", "scope", "selector", "does", "rules", "dry_run"),
    "certificates": ("node", "identity", "state", "not_after", "next_attempt", "serial", "trusts", "error"),
    "engines": ("node", "pid", "state", "leaving", "started", "build", "version"),
    "connections": (
        "node", "source", "source_address", "destination", "destination_address", "path", "bytes_sent",
        "bytes_received", "rule",
    ),
}  # fmt: skip


@click.group()
def get() -> None:
    """Show what agents know. Every node of the lab is asked unless --node says which."""


def own(answers: Answers, node: str | None) -> list[Row]:
    """Of each pod the row of the agent that captures it; every agent knows all pods."""
    asked = {agent.node for agent, _ in answers}
    found: dict[str, Row] = {}
    for agent, rows in answers:
        for row in rows:
            key = f"{row['namespace']}/{row['name']}"
            if agent.node == row["node"] or (row["node"] not in asked and key not in found):
                found[key] = row
    chosen = [row for row in found.values() if node is None or row["node"] == node]
    return sorted(chosen, key=lambda row: (row["node"], row["namespace"], row["name"]))


def same(answers: Answers, _: str | None) -> list[Row]:
    """What all agents should agree on: each different row once, in the order of the first agent."""
    found: list[Row] = []
    for _agent, rows in answers:
        found += [row for row in rows if row not in found]
    return sorted(found, key=lambda row: (row.get("kind", ""), row["namespace"], row["name"]))


def each(answers: Answers, _: str | None) -> list[Row]:
    """What belongs to one agent: all rows, with its node."""
    return [{"node": agent.node, **row} for agent, rows in answers for row in rows]


def _command(noun: str, merge: Callable[[Answers, str | None], list[Row]], columns: Sequence[str], text: str) -> None:
    @get.command(noun, help=text)
    @sockets.options
    @printing.option
    def show(node: str | None, lab: str | None, socket: Path | None, output: str) -> None:
        answers = sockets.ask(sockets.find(node, lab, socket), noun)
        printing.rows(merge(answers, node), output, columns, noun)


_command("workloads", own, COLUMNS["workloads"], "Pods: where they are, if they are enrolled, as whom.")
_command("services", same, COLUMNS["services"], "Services and the pods behind them.")
_command("policies", same, COLUMNS["policies"], "Policies of all kinds, with whom they are for.")
_command("certificates", each, COLUMNS["certificates"], "Workload certificates that agents hold; never a key.")
_command("engines", each, COLUMNS["engines"], "Engines: which one takes what comes, and older ones.")
_command("connections", each, COLUMNS["connections"], "Connections that are open now, and their bytes so far.")
