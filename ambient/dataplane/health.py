"""Endpoints that could not be reached are set aside for a while: 1 s, doubled each time, 30 s at most. Pure."""

from __future__ import annotations

import ipaddress

from ambient.model.mesh import TUNNEL_PORT, IPAddress

FIRST_S, MOST_S = 1.0, 30.0
Key = tuple[IPAddress, int]


class Health:
    """A container of the (address, port) pairs to avoid at the moment `now` was last told."""

    def __init__(self) -> None:
        self._until: dict[Key, float] = {}
        self._pause: dict[Key, float] = {}
        self._now = 0.0

    @property
    def quiet(self) -> bool:
        """Nothing failed lately, so there is nothing to be told of what worked."""
        return not self._pause and not self._until

    def __contains__(self, endpoint: object) -> bool:
        """An endpoint is avoided for its own port, and for its tunnel port if that is what failed."""
        return any(self._until.get(key, 0.0) > self._now for key in _keys(endpoint))

    def failed(self, ip: IPAddress, port: int, now: float) -> float | None:
        """Set an endpoint aside. Returns the moment it comes back, or None if it was aside already."""
        self._now = now
        key = (ip, port)
        if self._until.get(key, 0.0) > now:
            return None
        pause = min(self._pause.get(key, FIRST_S / 2) * 2, MOST_S)
        self._pause[key] = pause
        self._until[key] = now + pause
        return now + pause

    def worked(self, ip: IPAddress, port: int) -> bool:
        """A connection was made: forget past failures. True if it had been set aside until now."""
        self._pause.pop((ip, port), None)
        return self._until.pop((ip, port), 0.0) > self._now

    def tick(self, now: float) -> set[IPAddress]:
        """Advance time. Returns the addresses whose pause is over and which may be planned again."""
        self._now = now
        back = {key for key, until in self._until.items() if until <= now}
        for key in back:
            del self._until[key]
        return {ip for ip, _ in back}


def _keys(endpoint: object) -> list[Key]:
    match endpoint:
        case (ipaddress.IPv4Address() | ipaddress.IPv6Address() as ip, int() as port):
            return [(ip, port), (ip, TUNNEL_PORT)]
    return []
