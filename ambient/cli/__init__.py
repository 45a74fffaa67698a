"""The command line. Nouns read, verbs change; a command's module is imported when it is called, so that help is quick.

Exit codes: see errors.py. Shell completion is click's: `eval "$(_AMBIENT_COMPLETE=bash_source ambient)"`.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click

from ambient import __version__
from ambient.cli import streams

__all__ = ["main"]


class _Lazy(NamedTuple):
    where: str  # module:command
    help: str  # one line, so that listing it imports nothing; empty: hidden


COMMANDS = {
    "agent": _Lazy("ambient.cli.agent:agent", "Run this node's agent."),
    "ca": _Lazy("ambient.cli.ca:ca", "The CA's roots, and the steps that replace one."),
    "ask": _Lazy("ambient.cli.ask:ask", ""),
    "check": _Lazy("ambient.cli.check:check", "Check this machine, or manifests, before anything is changed."),
    "control": _Lazy("ambient.cli.control:control", "Run a replica of the control plane."),
    "explain": _Lazy("ambient.cli.explain:explain", "Say what would happen to a connection, and why."),
    "get": _Lazy("ambient.cli.get:get", "Show what agents know: workloads, policies, connections and more."),
    "lab": _Lazy("ambient.cli.lab:lab", "A cluster of network namespaces on this machine."),
    "uninstall": _Lazy("ambient.cli.uninstall:uninstall", "Take the mesh off this node."),
    "trace": _Lazy("ambient.cli.trace:trace", "Watch enrolled pods' TCP live, in words."),
    "verify": _Lazy("ambient.cli.verify:verify", "Prove that mutual TLS is on for a namespace."),
}


class _Commands(streams.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return sorted(name for name, command in COMMANDS.items() if command.help)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        module, _, name = found.where.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command), found.where
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ambient")
def main() -> None:
    """Ambient: a service mesh without sidecars.

    Exit codes: 0 yes, or done; 1 the answer is no, or it did not work; 2 wrong usage; 3 nobody to ask: no agent, no
    lab; 4 this machine lacks something.
    """
