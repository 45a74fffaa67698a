"""A few questions for everybody, one more every so often, and none lost by a good answer."""

from __future__ import annotations

from datetime import UTC, datetime

from ambient.control import strikes
from ambient.control.strikes import BACK, BURST, Strikes

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def used_up() -> Strikes:
    found = Strikes()
    assert [found.take("a", NOW) for _ in range(BURST + 1)] == [True] * BURST + [False]
    return found


def test_each_peer_has_so_many() -> None:
    assert used_up().take("b", NOW)


def test_one_comes_back_every_so_often_and_never_more_than_all() -> None:
    found = used_up()
    assert [found.take("a", NOW + BACK) for _ in range(2)] == [True, False]
    assert [found.take("a", NOW + 100 * BACK) for _ in range(BURST + 1)] == [True] * BURST + [False]


def test_what_was_no_strike_is_given_back() -> None:
    found = used_up()
    found.give("a", NOW)
    assert [found.take("a", NOW) for _ in range(2)] == [True, False]


def test_so_many_peers_are_remembered_those_that_came_last() -> None:
    found = used_up()
    for number in range(strikes.REMEMBERED):
        found.take(str(number), NOW)
    assert found.take("a", NOW)
    assert len(found._peers) == strikes.REMEMBERED
