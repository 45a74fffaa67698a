"""How long to wait before another try. Pure: chance in, seconds out."""

from __future__ import annotations

import random

JITTER = 0.2  # what failed together must not come back together


def pause(failures: int, rng: random.Random, *, first: float = 1.0, last: float = 60.0) -> float:
    """Seconds after so many failures in a row: `first`, then double, up to `last`; each 20 % shorter or longer."""
    return min(first * float(1 << min(max(failures, 1) - 1, 20)), last) * (1 + rng.uniform(-JITTER, JITTER))
