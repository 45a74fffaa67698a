"""How much slower than a machine of its own this one is: the one factor for what tests wait at most, and for limits.

`make test-vm` sets AMBIENT_TEST_SLOWNESS, since software emulation takes ten times as long and more. Deadlines move;
what is asserted stays.
"""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("AMBIENT_TEST_SLOWNESS", "1"))


def seconds(value: float) -> float:
    """What takes at most so many seconds natively, here."""
    return value * FACTOR
