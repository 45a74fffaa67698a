"""Whose tokens look good and are nobody's: how many more of his the API server is asked about. Pure.

A forged token that says all that a good one says costs a question. A peer may have a few questions open or answered
with no, and gets one back every so often; what was answered with yes costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta

BURST = 10  # an agent has one token, and one more when kubelet renews it
BACK = timedelta(seconds=6)
REMEMBERED = 10_000  # peers; whom nobody remembers has no strikes


class Strikes:
    def __init__(self) -> None:
        self._peers: OrderedDict[str, tuple[float, datetime]] = OrderedDict()  # strikes, and when they were counted

    def take(self, peer: str, now: datetime) -> bool:
        """Whether the peer may ask; that it asks is a strike until give()."""
        strikes = self._now(peer, now)
        if strikes > BURST - 1:
            return False
        self._set(peer, strikes + 1, now)
        return True

    def give(self, peer: str, now: datetime) -> None:
        """It was no strike."""
        self._set(peer, max(self._now(peer, now) - 1, 0.0), now)

    def _now(self, peer: str, now: datetime) -> float:
        strikes, since = self._peers.get(peer, (0.0, now))
        return max(strikes - (now - since) / BACK, 0.0)

    def _set(self, peer: str, strikes: float, now: datetime) -> None:
        self._peers[peer] = strikes, now
        self._peers.move_to_end(peer)
        if len(self._peers) > REMEMBERED:
            self._peers.popitem(last=False)
