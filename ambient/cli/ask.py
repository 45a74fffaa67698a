"""`ambient ask`: one question for this node's agent from stdin, its answer to stdout: the near end of kubectl.py.

Not for people; lines as the admin socket speaks them.
"""

from __future__ import annotations

import sys

import click

from ambient.cli import sockets
from ambient.cli.errors import Nobody
from ambient.observe import client


@click.command(hidden=True)
def ask() -> None:
    """Pass a line of JSON to this node's agent, and its answer back."""
    asked = sys.stdin.buffer.readline()
    if not asked.endswith(b"\n"):
        raise click.UsageError("a question is one line of JSON on stdin")
    try:
        answer = client.exchange(sockets.NODE_SOCKET, asked, "what came on stdin", deadline_s=sockets.DEADLINE_S)
    except client.Unreachable as error:
        raise Nobody(str(error)) from error
    click.echo(answer, nl=False)
