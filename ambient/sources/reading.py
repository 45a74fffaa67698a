"""Reading untyped values strictly: every look at a value knows its path and notes what is wrong with it.

A reader goes on after an error (with a default), so that one pass finds all of them. Knows no kinds.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ambient.model.mesh import IPAddress, IPNetwork, address

T = TypeVar("T")
PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
NETWORK = re.compile(r"[0-9a-fA-F:.]+(/(0|[1-9][0-9]{0,2}))?")
MAPPING = (dict, Mapping)  # asked of most values, and of a dict it is quickly answered
SHOWN = 80  # characters of a wrong value that an error shows
HINTS = 20  # names that it lists


@dataclass(frozen=True, slots=True)
class Problem:
    path: str
    expected: str
    found: str


@dataclass(slots=True)
class Spot:
    """A value at a path. null and absent are the same, as in Kubernetes."""

    value: object
    problems: list[Problem] = field(default_factory=list)
    _above: Spot | None = None
    _key: str | int = ""  # below it: a field's name or a place in a list

    @property
    def path(self) -> str:
        """Put together when it is asked for: most values have no problem."""
        if self._above is None:
            return ""
        above = self._above.path
        if isinstance(self._key, int):
            return f"{above}[{self._key}]"
        if not PLAIN_KEY.fullmatch(self._key):
            return f'{above}["{self._key}"]'
        return f"{above}.{self._key}" if above else self._key

    def wrong(self, expected: str, found: str | None = None) -> None:
        self.problems.append(Problem(self.path, expected, shown(self.value) if found is None else found))

    def __bool__(self) -> bool:
        """Whether there is anything to read."""
        return self.value is not None

    def get(self, key: str) -> Spot:
        """The field, or a Spot of nothing."""
        return self.below(key, self.value.get(key) if isinstance(self.value, MAPPING) else None)

    def below(self, key: str, value: object) -> Spot:
        """A value at the field's path, whatever is there."""
        return Spot(value, self.problems, self, key)

    def at(self, *keys: str) -> Spot:
        spot = self
        for key in keys:
            spot = spot.mapping().get(key)
        return spot

    def mapping(self, *known: str) -> Spot:
        """This Spot, checked to be a mapping or absent; with `known`, other fields are errors."""
        if self.value is not None and not isinstance(self.value, Mapping):
            self.wrong("a mapping")
            return Spot(None, self.problems, self._above, self._key)
        if known and self.value is not None:
            for key in self.value:
                if key not in known:
                    self.get(str(key)).wrong(f"no such field ({hint(str(key), known)})", repr(key))
        return self

    def required(self, expected: str) -> Spot:
        if self.value is None:
            self.wrong(expected, "nothing")
        return self

    def items(self) -> Iterator[Spot]:
        """The elements of a list, absent means none."""
        if self.value is None:
            return
        if not isinstance(self.value, list):
            self.wrong("a list")
            return
        for index, item in enumerate(self.value):
            yield Spot(item, self.problems, self, index)

    def text(self, default: str = "") -> str:
        if self.value is None:
            return default
        if not isinstance(self.value, str):
            self.wrong("text")
            return default
        return self.value

    def flag(self, default: bool = False) -> bool:
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            self.wrong("true or false")
            return default
        return self.value

    def port(self) -> int | None:
        if isinstance(self.value, int) and not isinstance(self.value, bool) and 0 < self.value < 65536:
            return self.value
        self.wrong("a port number from 1 to 65535")
        return None

    def labels(self) -> Mapping[str, str]:
        """A mapping of text to text."""
        found: dict[str, str] = {}
        if self.mapping().value is not None and isinstance(self.value, Mapping):
            for key, value in self.value.items():
                if isinstance(key, str) and isinstance(value, str):
                    found[key] = value
                else:
                    self.get(str(key)).wrong("text", shown(value if isinstance(key, str) else key))
        return found

    def one_of(self, options: Mapping[str, T], default: T, *, closed: T | None = None) -> T:
        """What the text stands for. `closed`: what to go on with if it is none of the options, unless the default."""
        if self.value is None:
            return default
        if isinstance(self.value, str) and self.value in options:
            return options[self.value]
        self.wrong(" or ".join(sorted(options)))
        return default if closed is None else closed

    def parsed(self, parse: Callable[[str], T], expected: str) -> T | None:
        """The text as parse() reads it; its ValueError becomes a problem."""
        if isinstance(self.value, str):
            try:
                return parse(self.value)
            except ValueError:
                pass  # said just below, with the path
        self.wrong(expected)
        return None

    def address(self) -> IPAddress | None:
        return self.parsed(address, "an IP address")

    def network(self) -> IPNetwork | None:
        return self.parsed(network, "an IP address or CIDR block")


def network(text: str) -> IPNetwork:
    """An address or CIDR block; host bits are cleared, an IPv4-mapped block is IPv4. ValueError when it is neither.

    No netmask, which may be meant the other way round, and no zone: as the API server reads them.
    """
    if not NETWORK.fullmatch(text):
        raise ValueError(text)
    parsed = ipaddress.ip_network(text, strict=False)
    if isinstance(parsed, ipaddress.IPv6Network) and parsed.prefixlen >= 96:
        mapped = parsed.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, parsed.prefixlen - 96))
    return parsed


def hint(unknown: str, known: Collection[str]) -> str:
    """What helps whoever wrote a name that is none."""
    if close := difflib.get_close_matches(unknown, known, n=1):
        return f"did you mean {close[0]}?"
    more = f" and {len(known) - HINTS} more" if len(known) > HINTS else ""
    return f"known: {', '.join([*known][:HINTS]) or 'none'}{more}"


def shown(value: object) -> str:
    """A value as an error shows it."""
    match value:
        case None:
            return "nothing"
        case Mapping():
            return "a mapping"
        case list():
            return "a list"
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
