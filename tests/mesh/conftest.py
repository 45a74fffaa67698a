"""Fixtures of the mesh tests: a lab per module, the wire oracle, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.lab import layout
from tests import slowness
from tests.mesh.cluster import Mesh, traces
from tests.mesh.wire import Wire

_used: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(slowness.seconds(90)))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """The last word of the session: what a lab made is gone, whatever happened in the tests."""
    netns = set(os.listdir(layout.NETNS_DIR)) if layout.NETNS_DIR.exists() else set()
    yield
    left = [trace for name in _used for trace in traces(name)]
    ours = tuple(f"amb-{name}-" for name in _used)
    if layout.NETNS_DIR.exists():
        left += [name for name in set(os.listdir(layout.NETNS_DIR)) - netns if name.startswith(ours)]
    assert not left, left


@pytest.fixture(scope="module")
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """The module's lab, of its MANIFESTS. Its name is the module's."""
    name = "mesh" + request.module.__name__.rpartition(".test_")[2].replace("_", "")
    _used.append(name)
    with Mesh(name) as mesh:
        mesh.down()  # of a session that was killed
        mesh.begin(request.module.MANIFESTS)
        yield mesh
    assert not traces(mesh.layout.lab)


@pytest.fixture(autouse=True)
def marked(mesh: Mesh) -> None:
    """Each test reads only what was told since it began: the connections of the one before are over and recorded."""
    mesh.quiet()
    mesh.mark()


@pytest.fixture
def wire(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[Wire]:
    """The oracle listens during the test, and has the last word."""
    inside = getattr(request.module, "INSIDE", ["shop/client", "shop/web", "shop/near"])
    with Wire(mesh, inside) as wire:
        yield wire
    assert wire.findings() == []
