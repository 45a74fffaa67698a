"""Tables that share what did not change: they are what a dict would be, and making the next one is cheap."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.model.revised import Layers, revised
from tests import costs

CHANGES = st.dictionaries(st.integers(0, 30), st.none() | st.integers(0, 3), max_size=4)


@given(st.dictionaries(st.integers(0, 30), st.integers(0, 3)), st.lists(CHANGES, max_size=12))
def test_a_table_is_what_a_dict_would_be_after_the_same_changes(
    first: dict[int, int], steps: list[dict[int, int | None]]
) -> None:
    table: Mapping[int, int] = dict(first)
    seen = [(table, dict(first))]
    for changes in steps:
        expected = {**seen[-1][1], **changes}
        table = revised(table, changes)
        seen.append((table, {key: value for key, value in expected.items() if value is not None}))
    for found, same in seen:  # those before are what they were, too
        assert found == same
        assert len(found) == len(same)
        assert set(found) == set(found.keys()) == set(same)
        assert sorted(found.items()) == sorted(same.items())
        assert sorted(found.values()) == sorted(same.values())
        for key in range(31):
            assert (key in found, found.get(key), found.get(key, "no")) == (
                key in same,
                same.get(key),
                same.get(key, "no"),
            )


def test_what_is_not_there_is_a_key_error() -> None:
    table = revised(dict.fromkeys(range(100), 1), {5: None})
    assert isinstance(table, Layers)
    for key in (5, 1000):
        with pytest.raises(KeyError, match=str(key)):
            table[key]
    assert table[6] == 1


def test_without_changes_it_is_the_same_table() -> None:
    table = {1: 2}
    assert revised(table, {}) is table


def test_many_changes_at_once_become_a_table_without_layers() -> None:
    assert type(revised(dict.fromkeys(range(100), 1), dict.fromkeys(range(50), 2))) is dict


def test_a_change_copies_some_square_root_of_the_table() -> None:
    def thousand_changes(size: int) -> costs.Cost:
        table: Mapping[int, int] = dict.fromkeys(range(size), 0)

        def change(number: int) -> None:
            nonlocal table
            table = revised(table, {number % size: number})

        return costs.of_all(functools.partial(change, number) for number in range(1_000))

    small, large = thousand_changes(1_000), thousand_changes(100_000)
    assert large.steps < small.steps * 12
    assert large.peak_bytes < small.peak_bytes * 12  # 100 times the entries
