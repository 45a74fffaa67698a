"""How commands print: JSON for programs, tables for people. Everything is sorted by whoever made the rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

Rows = Sequence[Mapping[str, object]]
F = TypeVar("F", bound=Callable[..., Any])


def option(command: F) -> F:
    """`-o table|json`, as the argument `output`."""
    choose = click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print."
    )
    return choose(command)


def of_change(command: F) -> F:
    """`-o text|json` of a command that changes something, as the argument `output`."""
    choose = click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
    )
    return choose(command)


def teller(output: str) -> Callable[[str], None]:
    """What says a line to people; a program has its value at the end."""
    return (lambda _: None) if output == "json" else click.echo


class Told:
    """What a command that changes something says: to people as it comes true, to programs in one value at the end."""

    def __init__(self, output: str) -> None:
        self._json = output == "json"
        self._said: list[str] = []

    def say(self, sentence: str) -> None:
        self._said.append(sentence)
        if not self._json:
            click.echo(sentence)

    def end(self, **facts: object) -> None:
        """`facts`: the value's fields, beside what was said."""
        if self._json:
            as_json({**facts, "said": self._said})


def as_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def rows(found: Rows, output: str, columns: Sequence[str], what: str) -> None:
    """JSON has every field, a table the `columns`. `what`: the plural noun, for when there is none."""
    if output == "json":
        as_json(list(found))
    elif not found:
        click.echo(f"No {what}.", err=True)
    else:
        table(found, columns)


def table(found: Rows, columns: Sequence[str]) -> None:
    """On a terminal fitted to it; into a pipe or file every row is one line, nothing is cut."""
    cells = [[text(row.get(column)) for column in columns] for row in found]
    header = [column.replace("_", " ").upper() for column in columns]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        for line in (header, *cells):
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            click.echo("  ".join(padded).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in header:
        shown.add_column(name, overflow="fold")
    for line in cells:
        shown.add_row(*map(Text, line))
    Console().print(shown)


def many(count: int, plural: str) -> str:
    """`2 nodes`, `1 policy`."""
    one = f"{plural[:-3]}y" if plural.endswith("ies") else plural[:-1]
    return f"{count} {one if count == 1 else plural}"


def text(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(text, value)) or "-"
    return "-" if value is None or value == "" else str(value)
