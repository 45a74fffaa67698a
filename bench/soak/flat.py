"""Is a series flat at its end? Pure.

By the second half only: the first is for caches to fill. By the median of the slopes between all pairs of samples
(Theil, Sen), which a burst, a collection or a busy moment does not move: up to 29 % of the samples may be anything.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much a series may grow in its second half: the larger of the two."""

    absolute: float
    share: float  # of its level

    def of(self, level: float) -> float:
        return max(self.absolute, self.share * level)


# Bytes. An allocator returns pages when it likes; what is kept of the last thousand connections takes minutes to fill.
MEMORY = Tolerance(absolute=1 << 20, share=0.02)
STASHED = Tolerance(absolute=4, share=0.2)  # an engine's descriptors: the sockets kept ready follow the load's bursts
SERIES = Tolerance(absolute=10, share=0.25)  # of metrics: a name's rarer ways to end are met late, each once
COUNT = Tolerance(absolute=2, share=0.05)  # descriptors and entries: as many as there is load at the moment


@dataclass(frozen=True, slots=True)
class Trend:
    """Of the second half: its median, and what it grew, by its slope."""

    level: float
    grown: float

    def within(self, tolerance: Tolerance) -> bool:
        return self.grown <= tolerance.of(self.level)


def trend(samples: Sequence[tuple[float, float]]) -> Trend:
    """Samples are (seconds, value), in order. Raises ValueError for too few to tell."""
    half = samples[len(samples) // 2 :]
    if len(samples) < 10:
        raise ValueError(f"{len(samples)} samples tell nothing: 10 are the least")
    slope = statistics.median((b - a) / (then - now) for (now, a), (then, b) in itertools.combinations(half, 2))
    return Trend(statistics.median(value for _, value in half), slope * (half[-1][0] - half[0][0]))
