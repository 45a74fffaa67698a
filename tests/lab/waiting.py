"""Waiting for what gives no event, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests import slowness

PAUSE_S = 0.02


def eventually(condition: Callable[[], object], *, deadline_s: float = 10.0) -> None:
    """Return when the condition holds; AssertionError when it still does not at the deadline."""
    deadline_s = slowness.seconds(deadline_s)
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"not within {deadline_s:g} s"
        time.sleep(PAUSE_S)
