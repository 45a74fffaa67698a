"""What something costs, counted and not timed: a busy machine changes nothing about it."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True, slots=True)
class Cost:
    steps: int  # lines of Python that were run, and calls: what a walk over something shows in
    peak_bytes: int  # allocated at once: what a copy of something shows in

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.steps + other.steps, self.peak_bytes + other.peak_bytes)


def of(work: Callable[[], object]) -> Cost:
    """Of what is done in this thread."""
    steps = 0

    def step(_: FrameType, __: str, ___: Any) -> Any:
        nonlocal steps
        steps += 1
        return step

    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    before, tracer = tracemalloc.get_traced_memory()[0], sys.gettrace()
    tracemalloc.reset_peak()
    sys.settrace(step)
    try:
        work()
    finally:
        sys.settrace(tracer)
        peak = tracemalloc.get_traced_memory()[1]
        if not tracing:
            tracemalloc.stop()
    return Cost(steps, peak - before)


def of_all(works: Iterable[Callable[[], object]]) -> Cost:
    """Of each on its own, summed."""
    return sum((of(work) for work in works), Cost(0, 0))
