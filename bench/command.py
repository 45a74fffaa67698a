"""What the benchmarks' command lines have in common: lists of sizes, root, and failures told in a sentence.

Exit codes are those of `ambient`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import click

from ambient.cli import streams
from ambient.cli.errors import Failure, Lacking


class Command(streams.Guarded):
    """What the machine refused is no fault of the program: it is told without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except subprocess.CalledProcessError as error:
            words = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd))
            said = f": {error.stderr.strip()}" if isinstance(error.stderr, str) else "; what it said is above"
            raise Failure(f"`{words}` ended with {error.returncode}{said}") from error
        except OSError as error:
            if streams.is_of_output(error):
                raise
            raise Failure(str(error)) from error


class Sizes(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """`1000,5000`: a tuple of numbers, none of them below `least`."""

    name = "N,N,..."

    def __init__(self, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        words = [word.strip() for word in str(value).split(",")]
        if not all(word.isascii() and word.isdigit() and int(word) >= self._least for word in words):
            self.fail(f"{value!r}: expected numbers from {self._least} on, separated by commas", param, ctx)
        return tuple(map(int, words))


@contextlib.contextmanager
def told(*kinds: type[Exception]) -> Iterator[None]:
    """Errors whose text is all there is to say. Not all of them are Command's matter: to import who raises them would
    weigh on the processes that are measured, which are commands too."""
    try:
        yield
    except kinds as error:
        raise Failure(str(error)) from error


def need_root(purpose: str) -> None:
    if os.geteuid() != 0:
        raise Lacking(f"it needs root {purpose}: run this as root")
