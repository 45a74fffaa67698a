"""What is made once of each flow: a busy node ends thousands of connections a second under a handful of them.

Flows are told apart by identity, not by value: to compare two costs more than to make something twice now and then.
What was made of a flow goes with it, so a node whose pods come and go keeps nothing of those that went.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from ambient.observe.records import Flow

T = TypeVar("T")


class PerFlow(Generic[T]):
    def __init__(self, make: Callable[[Flow], T]) -> None:
        """What is made must not keep the flow, or neither ever goes."""
        self._make = make
        self._made: dict[int, tuple[weakref.ref[Flow], T]] = {}  # by id, which is nobody else's before the flow is gone

    def __len__(self) -> int:
        return len(self._made)

    def of(self, flow: Flow) -> T:
        key = id(flow)
        found = self._made.get(key)
        if found is None:
            goes = weakref.ref(flow, lambda _: self._made.pop(key, None))
            found = self._made[key] = goes, self._make(flow)
        return found[1]
