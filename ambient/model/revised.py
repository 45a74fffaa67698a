"""A table with a few changes on top of it, without copying it: how the next World shares tables with the last one.

What changed lies above the table it is a change of. When it has grown to the square root of that, both become a new
table: so of n entries a change copies some square root of n, and a reader looks in two places at most.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


def revised(table: Mapping[K, V], changes: Mapping[K, V | None]) -> Mapping[K, V]:
    """The table with other values, and without the keys whose value is None. The same if there are no changes."""
    if not changes:
        return table
    below: Mapping[K, V] = table
    above: dict[K, V | None] = dict(changes)
    if isinstance(table, Layers):
        below, above = table.below, {**table.above, **changes}
    layers = Layers(below, above)
    return layers if len(above) ** 2 <= len(below) else layers.whole()


class Layers(Mapping[K, V]):
    """Never changed once it is made, nor is what it is made of."""

    __slots__ = ("above", "below")

    def __init__(self, below: Mapping[K, V], above: Mapping[K, V | None]) -> None:
        """above: None takes a key away."""
        self.below = below
        self.above = above

    def whole(self) -> dict[K, V]:
        """As one table."""
        found = {**self.below}
        for key, value in self.above.items():
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
        return found

    def __getitem__(self, key: K) -> V:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | D) -> V | D: ...
    def get(self, key: K, /, default: V | D | None = None) -> V | D | None:
        found = self.above[key] if key in self.above else self.below.get(key)
        return default if found is None else found

    def __contains__(self, key: object) -> bool:
        return (self.above[key] is not None) if key in self.above else key in self.below  # type: ignore[index]  # it is

    def __len__(self) -> int:
        more = sum((value is not None) - (key in self.below) for key, value in self.above.items())
        return len(self.below) + more

    # Whoever walks over all of it may as well have all of it in one piece, which is copied and walked over at C speed.

    def __iter__(self) -> Iterator[K]:
        return iter(self.whole())

    def keys(self) -> KeysView[K]:
        return self.whole().keys()

    def values(self) -> ValuesView[V]:
        return self.whole().values()

    def items(self) -> ItemsView[K, V]:
        return self.whole().items()
