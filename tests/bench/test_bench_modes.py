"""Which cores are whose."""

from __future__ import annotations

import pytest

from bench.mesh import modes


@pytest.mark.parametrize(
    ("cores", "first", "second"),
    [
        pytest.param([0, 1], (0,), (1,), id="one each"),
        pytest.param([0, 1, 4, 5], (0, 1), (4, 5), id="two each"),
        pytest.param([0, 1, 2], (0,), (1, 2), id="an odd one is the server's"),
        pytest.param([3], (3,), (3,), id="a single one is both's"),
    ],
)
def test_each_node_has_half_of_the_cores(cores: list[int], first: tuple[int, ...], second: tuple[int, ...]) -> None:
    assert modes.halves(cores) == (first, second)


def test_every_mode_has_a_title() -> None:
    assert set(modes.TITLES) == set(modes.NAMES)
