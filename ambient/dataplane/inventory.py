"""What engines list when asked what they hold, gathered from every worker. Sends nothing.

A worker answers in the order it was asked, so a row belongs to its oldest unfinished inventory.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from ambient.dataplane import abi
from ambient.dataplane.link import Link
from ambient.dataplane.wire import Message


@dataclass(slots=True)
class Rows:
    """What every worker listed, in the order it came, and those that have not finished."""

    rows: list[tuple[Link, Message]] = field(default_factory=list)
    waiting: set[Link] = field(default_factory=set)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.rows]


class Inventories:
    """Those under way."""

    def __init__(self) -> None:
        self._by_number: dict[int, Rows] = {}
        self._numbers = itertools.count(1)

    def begin(self, links: Iterable[Link]) -> tuple[int, Rows]:
        number, rows = next(self._numbers), Rows(waiting={link for link in links if link.is_open})
        self._by_number[number] = rows
        self._finish(rows)
        return number, rows

    def end(self, number: int) -> None:
        del self._by_number[number]

    def heard(self, link: Link, message: Message) -> None:
        rows = next((each for each in self._by_number.values() if link in each.waiting), None)
        if rows is None:
            return
        if message.type is not abi.Type.ROW_END:
            rows.rows.append((link, message))
            return
        rows.waiting.discard(link)
        self._finish(rows)

    def lost(self, link: Link) -> None:
        """It will list nothing more: what it carried is over."""
        for rows in self._by_number.values():
            rows.waiting.discard(link)
            self._finish(rows)

    def _finish(self, rows: Rows) -> None:
        if not rows.waiting:
            rows.done.set()
