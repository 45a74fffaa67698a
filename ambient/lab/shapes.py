"""Which fields an object may have, as data, and reading one by it strictly: nothing is passed over in silence.

Pure; knows no kinds (see playable.py). What is wrong goes into the Spot's problems, as everywhere in ambient.sources.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ambient.sources.reading import Spot, hint

Leaf = Callable[[Spot], object]  # reads one value
Notes = list[tuple[str, str]]  # field, and why it makes no difference
ABSENT: tuple[object, ...] = (None, False, "", [], {})  # for what is not played, these ask for nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A mapping and its fields."""

    played: Mapping[str, Field]
    moot: Mapping[str, str] = field(default_factory=dict)  # accepted; why it changes nothing, as a note unless empty
    beyond: Mapping[str, str] = field(default_factory=dict)  # Kubernetes knows it, here it cannot be played: why
    required: Mapping[str, str] = field(default_factory=dict)  # what is expected where there is nothing
    also: Leaf | None = None  # what holds between fields; asked only when each of them is well

    def read(self, spot: Spot, notes: Notes) -> None:
        wrong = len(spot.problems)
        fields: Any = spot.mapping().value
        if fields is None:
            return
        for name, value in fields.items():
            inner = spot.below(str(name), value)
            if reader := self.played.get(name):
                if inner:  # null is absent
                    read(reader, inner, notes)
            elif name in self.moot:
                if self.moot[name] and value not in ABSENT:
                    notes.append((inner.path, self.moot[name]))
            elif name in self.beyond:
                if value not in ABSENT:
                    inner.wrong(f"no such field ({self.beyond[name]})")
            else:
                inner.wrong(f"no such field ({hint(str(name), self.known)})", repr(name))
        for name, expected in self.required.items():
            spot.get(name).required(expected)
        if self.also is not None and len(spot.problems) == wrong:
            self.also(spot)

    @property
    def known(self) -> Collection[str]:
        return [*self.played, *self.moot, *self.beyond]


@dataclass(frozen=True, slots=True)
class Each:
    """A list of mappings."""

    shape: Shape
    at_least_one: str = ""  # what is expected of a list that is empty

    def read(self, spot: Spot, notes: Notes) -> None:
        if self.at_least_one and spot.value == []:
            spot.wrong(self.at_least_one, "an empty list")
        for item in spot.items():
            if item.required("a mapping"):
                self.shape.read(item, notes)


Field = Shape | Each | Leaf


def read(reader: Field, spot: Spot, notes: Notes) -> None:
    if isinstance(reader, Shape | Each):
        reader.read(spot, notes)
    else:
        reader(spot)


# Leaves


def anything(_: Spot) -> None:
    """For what others read: the mesh's own parser."""


def texts(expected: str, *, at_least_one: bool = False) -> Leaf:
    """A list of texts."""

    def leaf(spot: Spot) -> None:
        if not isinstance(spot.value, list) or (at_least_one and not spot.value):
            spot.wrong(expected, "an empty list" if spot.value == [] else None)
            return
        for item in spot.items():
            if not isinstance(item.value, str):
                item.wrong("text (quote numbers)")

    return leaf


def number(least: float, *, whole: bool = False) -> Leaf:
    kinds = int if whole else int | float

    def leaf(spot: Spot) -> None:
        if isinstance(spot.value, bool) or not isinstance(spot.value, kinds) or not least <= spot.value < 1e9:
            spot.wrong(f"a {'whole ' if whole else ''}number, {least} or more")

    return leaf


def port_or_name(spot: Spot) -> None:
    if not (isinstance(spot.value, str) and spot.value):
        spot.port()


def only(*options: str, why: str = "") -> Leaf:
    """One of these texts."""

    def leaf(spot: Spot) -> None:
        if spot.value not in options:
            spot.wrong(" or ".join(options) + (f" ({why})" if why else ""))

    return leaf
