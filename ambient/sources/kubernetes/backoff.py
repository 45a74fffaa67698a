"""How long to wait before the next try. Pure: chance comes from outside."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

SHORTEST_S = 0.1
LONGEST_S = 30.0  # an API server that is back is found within this time
AT_MOST_S = 120.0  # nor is a server obeyed that asks for more patience


@dataclass(slots=True)
class Backoff:
    """Doubles with each failure, up to LONGEST_S; half of each delay is chance, so that a crowd comes spread out."""

    chance: Callable[[], float] = random.random  # from 0 to 1
    _failures: int = 0

    def failed(self, asked_for: float = 0.0) -> float:
        """Count a failure; the seconds to wait. asked_for: by the server, which knows better; 0: it did not say."""
        ceiling = min(LONGEST_S, 2 * SHORTEST_S * float(2 ** min(self._failures, 16)))
        self._failures += 1
        if asked_for:
            return min(asked_for, AT_MOST_S) * (1 + self.chance() / 2)
        return ceiling * (1 + self.chance()) / 2

    def worked(self) -> None:
        self._failures = 0
