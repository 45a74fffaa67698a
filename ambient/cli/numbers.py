"""What commands take as a span of time: a number that clocks and sockets can count with. Pure."""

from __future__ import annotations

from typing import Any

import click

MOST = 1e9  # 30 years of seconds; the kernel's clocks, and Python's, end somewhere beyond


class Span(click.FloatRange):
    """Seconds or hours. click's own range lets `nan` and `inf` through: nothing is less than the one, or too long."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if not found <= MOST:
            self.fail(f"{value}: expected a number of at most {MOST:.0e}", param, ctx)
        return found
