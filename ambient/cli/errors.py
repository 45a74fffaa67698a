"""How a command fails: one sentence on stderr, and an exit code that scripts can rely on."""

from __future__ import annotations

import enum

import click


class Exit(enum.IntEnum):
    OK = 0
    NO = 1  # the answer is no, or it did not work: refused, not found, not ready, a check failed
    USAGE = 2  # click's own
    NOBODY = 3  # there is no agent or lab to ask, or it does not answer
    LACKING = 4  # this machine lacks something: root, a package, a mount


class Failure(click.ClickException):
    """Ends the command. The text says what was tried, what was found and what to do."""

    exit_code = int(Exit.NO)


class Nobody(Failure):
    exit_code = int(Exit.NOBODY)


class Lacking(Failure):
    exit_code = int(Exit.LACKING)


def warn(message: str) -> None:
    click.echo(f"Warning: {message}", err=True)
