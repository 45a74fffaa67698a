"""Pauses: longer with each failure, never too long, and never the same for all."""

from __future__ import annotations

import random

import pytest

from ambient.xds.retry import JITTER, pause


@pytest.mark.parametrize(("failures", "seconds"), [(0, 1), (1, 1), (2, 2), (5, 16), (7, 60), (10_000, 60)])
def test_a_pause_doubles_up_to_its_limit(failures: int, seconds: float) -> None:
    assert pause(failures, random.Random(1)) == pytest.approx(seconds, rel=JITTER)


def test_those_that_failed_together_come_back_one_by_one() -> None:
    rng = random.Random(1)
    assert len({pause(3, rng) for _ in range(100)}) == 100
