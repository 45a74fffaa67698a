"""Fixtures of the engine's black-box tests."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from . import harness, pki


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> Iterator[harness.Pair]:
    """near and far, one worker each: what one worker remembers, the next question finds."""
    with harness.pair(tmp_path) as nodes:
        yield nodes


@pytest.fixture
def ca() -> pki.Authority:
    return pki.Authority()


@pytest.fixture
def far(tmp_path: pathlib.Path, ca: pki.Authority) -> Iterator[harness.Node]:
    """A single node with the identity shop/db, to be talked to by peers we did not write."""
    with harness.node(tmp_path / "far", ca.svid("shop", "db")) as node:
        yield node
