"""A node whose kernel is stood in for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dataplane.direct import Node
from tests.dataplane.standing import Kernel


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
def node(kernel: Kernel) -> Node:
    return Node(kernel=kernel)
