"""Waiting for what gives no event, with a deadline and a word for what was awaited."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import TypeVar

from tests import slowness

T = TypeVar("T")
PAUSE_S = 0.01


def eventually(what: str, found: Callable[[], T], *, within: float = 10.0) -> T:
    """The first true value; AssertionError naming `what` (and the last value) when there is none in time."""
    within = slowness.seconds(within)
    until = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < until, f"not within {within:g} s: {what}; last seen: {value!r}"
        time.sleep(PAUSE_S)
    return value


def gone(pid: int, *, within: float = 10.0) -> None:
    """Return when the process is dead (a zombie is)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], slowness.seconds(within))[0], f"process {pid} is alive after {within:g} s"
    finally:
        os.close(fd)
