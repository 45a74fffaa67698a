"""What commands take as a span of time: a number that clocks and sockets can count with. Pure."""

from __future__ import annotations

from typing import Any

import click

MOST = 1e9  # 30 years of seconds; the kernel's clocks, and Python's, end somewhere beyond


class Span(click.FloatRange):
    """click's own range lets `nan` and `inf` through: nothing is less than the one, or too long."""

    def __init__(self, least: float, most: float | None = None, *, unit: str = "seconds") -> None:
        super().__init__(least, most)
        self.name = unit  # as help calls it

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            found = float(value)
        except ValueError:
            self.fail(f"{value!r}: expected a number of {self.name}", param, ctx)
        if not found <= MOST:
            self.fail(f"{value!r}: expected a number of {self.name}, at most {MOST:.0e}", param, ctx)
        return float(super().convert(found, param, ctx))
