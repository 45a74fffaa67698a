"""What is made once of each flow: a busy node ends thousands of connections a second under a handful of them.

Flows are told apart by identity, not by value: to compare two costs more than to make something twice now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ambient.observe.records import Flow

T = TypeVar("T")
MOST = 4096  # flows remembered, some KiB each; then it starts anew


class PerFlow(Generic[T]):
    def __init__(self, make: Callable[[Flow], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Flow, T]] = {}  # the flow is kept so that its id is nobody else's

    def of(self, flow: Flow) -> T:
        found = self._made.get(id(flow))
        if found is None:
            if len(self._made) >= MOST:
                self._made.clear()
            found = self._made[id(flow)] = flow, self._make(flow)
        return found[1]
