"""So many bytes, shared by who asks first: what all clients together can make a server keep. Knows no socket.

Who may wait is served in the order of asking, and gets all that he asked for at once: nobody holds a part while he
waits for the rest.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Claim:
    """A place in the room, or in the queue for it; for its holder until release()."""

    count: int
    granted: bool
    over: bool
    _room: Room
    _then: Callable[[], None]

    def release(self) -> None:
        """It is wanted no longer. Again is once."""
        if not self.over:
            self.over = True
            self._room.released(self)

    def grant(self) -> None:
        """Not for holders."""
        self.granted = True
        self._then()


class Room:
    def __init__(self, most: int) -> None:
        """most: bytes; nobody may ask for more."""
        self.left = most
        self._waiting: collections.deque[Claim] = collections.deque()

    def claim(self, count: int, then: Callable[[], None]) -> Claim:
        """What is `granted` now, or later: `then` says so."""
        granted = not self._waiting and self.take(count)
        found = Claim(count, granted, False, self, then)
        if not granted:
            self._waiting.append(found)
        return found

    def take(self, count: int) -> bool:
        """Now or not at all; to be given back."""
        if count > self.left:
            return False
        self.left -= count
        return True

    def give(self, count: int) -> None:
        self.left += count
        self._serve()

    def released(self, claim: Claim) -> None:
        """For claims."""
        if claim.granted:
            self.give(claim.count)
        else:
            self._waiting.remove(claim)
            self._serve()  # it may have stood before others that need less

    def _serve(self) -> None:
        while self._waiting and self.take(self._waiting[0].count):
            self._waiting.popleft().grant()
