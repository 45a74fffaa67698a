"""An agent that runs out of descriptors says so, goes on, and mends itself when there are some again."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from tests.mesh.cluster import Mesh
from tests.mesh.manifests import Manifest, mtls, pod, shop
from tests.mesh.waiting import eventually
from tests.mesh.wire import Wire

pytestmark = pytest.mark.kernel

MANIFESTS: list[Manifest] = [*shop(), mtls("STRICT")]


@contextlib.contextmanager
def no_descriptor_left(pid: int, spare: int = 0) -> Iterator[None]:
    """The process may open `spare` more than it has."""
    had = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1 + spare, had[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, had)


@pytest.mark.parametrize("spare", [0, 1, 4, 9])
def test_an_agent_without_descriptors_lives_on(mesh: Mesh, wire: Wire, spare: int) -> None:
    client = mesh.puppet("shop/client")
    agent, engine = mesh.agent_pid("node1"), mesh.engine_pid("node1")
    late = pod("late", "node1")
    with no_descriptor_left(agent, spare):
        mesh.publish([late])
        word = wire.secret()
        assert client.ask("web", text=f"echo {word}").reply == word, "what was decided is carried on"
        eventually("it says so", lambda: "Too many open files" in mesh.new_log("node1"), within=15)
        if not spare:  # not even its regular look at what is pinned can be had
            eventually("verified", lambda: "kernel: capture is not whole" in mesh.new_log("node1"), within=15)
    mesh.settle()
    assert (mesh.agent_pid("node1"), mesh.engine_pid("node1")) == (agent, engine), mesh.new_log("node1")[-3000:]
    mesh.delete([late])
