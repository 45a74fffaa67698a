"""Ends in order: what a bench has set up is taken down whoever asks for its end."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP take the labs down as Ctrl-C does."""

    def end(number: int, _: object) -> None:
        sys.exit(f"ended by {signal.Signals(number).name}; the labs are gone")

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    yield
