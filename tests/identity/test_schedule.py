"""When certificates are renewed and attempts repeated."""

from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from ambient.identity import schedule

from . import make, virtual

NOW = virtual.EPOCH


@given(st.integers())
def test_renewal_is_near_half_of_the_life_left_at_issue(seed: int) -> None:
    moment = schedule.renew_at(NOW, NOW + make.DAY, random.Random(seed))
    assert 0.45 <= (moment - NOW) / make.DAY <= 0.55


def test_agents_that_started_together_drift_apart() -> None:
    moments = {schedule.renew_at(NOW, NOW + make.DAY, random.Random(seed)) for seed in range(100)}
    assert max(moments) - min(moments) > make.HOUR


@given(st.integers(), st.integers(1, 10_000))
def test_a_retry_waits_at_least_most_of_a_second_and_at_most_little_over_a_minute(seed: int, failures: int) -> None:
    pause = schedule.retry_at(NOW, failures, random.Random(seed)) - NOW
    assert timedelta(seconds=0.9) <= pause <= timedelta(seconds=66)


def test_retries_double() -> None:
    class Even(random.Random):
        def uniform(self, _low: float, _high: float) -> float:
            return 0.0

    pauses = [(schedule.retry_at(NOW, failures, Even()) - NOW).total_seconds() for failures in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
