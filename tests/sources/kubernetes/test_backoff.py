"""Delays between tries."""

from __future__ import annotations

import pytest

from ambient.sources.kubernetes.backoff import Backoff


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (1.0, 1.0)])
def test_delays_double_from_a_tenth_of_a_second_to_half_a_minute(chance: float, share: float) -> None:
    backoff = Backoff(lambda: chance)
    delays = [backoff.failed() for _ in range(12)]
    expected = [share * min(30, 0.2 * 2**n) for n in range(12)]
    assert delays == pytest.approx(expected)
    assert (min(delays), max(delays)) >= (0.1, 15)


def test_many_failures_cost_no_huge_numbers() -> None:
    backoff = Backoff(lambda: 1.0, 10**6)
    assert backoff.failed() == 30


def test_what_works_starts_it_anew() -> None:
    backoff = Backoff(lambda: 0.0)
    for _ in range(9):
        backoff.failed()
    backoff.worked()
    assert backoff.failed() == pytest.approx(0.1)


def test_the_server_may_ask_for_another_delay_but_not_for_any() -> None:
    backoff = Backoff(lambda: 0.0)
    assert backoff.failed(7) == 7
    assert backoff.failed(86_400) == 120
    for _ in range(9):
        backoff.failed()
    assert backoff.failed(1) == 1
    assert Backoff(lambda: 1.0).failed(1) == 1.5
