"""A command's own input and outputs where they are closed or full: told in a sentence. Opens nothing else."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from ambient.cli.errors import Exit

STREAMS = {"stdin": "r", "stdout": "w", "stderr": "w"}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}  # of a write; no other call of ours gives them


class Guarded(click.Command):
    """What any command of ours is, seen from the shell: see guarded()."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with guarded():
            return super().main(*args, **kwargs)


class Group(Guarded, click.Group):
    """The same of one that has others below it."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """A stream that is closed (`>&-`) is an empty one; an output that takes nothing ends the command with 1.

    Who only stopped reading, as `head` does, is click's matter: 1 too, and nothing to tell.
    """
    for name, mode in STREAMS.items():
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - as long as the process
    try:
        yield
    except OSError as error:
        if not is_of_output(error):
            raise
        _give_up(sys.stdout)
        try:
            click.echo(f"Error: the output cannot be written: {error.strerror}", err=True)
        except OSError:
            _give_up(sys.stderr)
        sys.exit(Exit.NO)


def is_of_output(error: OSError) -> bool:
    """Whether it says what became of an output, and nothing of what a command does."""
    return error.filename is None and error.errno in {*FULL, errno.EPIPE}


def _give_up(stream: TextIO) -> None:
    """What is still to be written would fail once more at the end, with an exit code of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
