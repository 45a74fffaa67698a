"""When a certificate is renewed, and when a failed attempt is repeated. Pure: moments and chance in, moments out."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

JITTER = 0.1  # agents that started together must not ask together for ever
FIRST_RETRY = timedelta(seconds=1)
LAST_RETRY = timedelta(seconds=60)  # how long after an issuer's recovery the last of us may ask


def renew_at(issued_at: datetime, not_after: datetime, rng: random.Random) -> datetime:
    """Half of what is left when it was issued (not of its backdated lifetime), 10 % earlier or later."""
    return issued_at + (not_after - issued_at) * (0.5 + rng.uniform(-JITTER, JITTER) / 2)


def retry_at(now: datetime, failures: int, rng: random.Random) -> datetime:
    """After the first failure 1 s, then double, up to 60 s; each 10 % shorter or longer."""
    pause = FIRST_RETRY * (1 << min(failures - 1, 10))
    return now + min(pause, LAST_RETRY) * (1 + rng.uniform(-JITTER, JITTER))
