"""Where it happens: a lab of two nodes whose agents have a control plane, and load across nodes and on one node."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from ambient.lab import addressing
from ambient.lab.process import Entrance
from bench.disruption import loads
from bench.disruption.loads import Load, Tally
from tests.mesh.cluster import Mesh, traces
from tests.mesh.manifests import Manifest, enrolled, mtls, node, pod
from tests.mesh.waiting import eventually

ACROSS, SAME_NODE = "across nodes", "same node"
PATHS = {ACROSS: "shop/far", SAME_NODE: "shop/near"}  # whom the driver on node1 dials
INSIDE = ["shop/driver", *PATHS.values()]
PLANE_PORT = 15012
MEMBERS, RATE = 200, 100  # on each path: connections that stay, and new ones a second


def manifests() -> list[Manifest]:
    program = str(loads.build())
    servers = [
        pod(name, on, program, "serve", str(loads.PORT), probe={"tcpSocket": {"port": loads.PORT}, "periodSeconds": 5})
        for name, on in (("far", "node2"), ("near", "node1"))
    ]
    return [node("node1"), node("node2"), enrolled("shop"), pod("driver", "node1"), *servers, mtls("STRICT")]


class Plane:
    """The lab's control plane, in the fabric: it reaches every node and is on none."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        layout = self._mesh.layout
        command = [sys.executable, "-m", "bench.disruption.plane", str(layout.cluster), str(layout.ca)]
        command += [str(addressing.FABRIC4), str(PLANE_PORT)]
        where = Entrance(cgroup=layout.cgroup, netns=self._mesh.fabric_netns)
        with (layout.state / "plane.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, preexec_fn=where, env=dict(os.environ), cwd=Path(__file__).parents[2]
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Scene:
    def __init__(self, mesh: Mesh, plane: Plane) -> None:
        self.mesh, self.plane = mesh, plane
        self.loads: dict[str, Load] = {}

    @contextlib.contextmanager
    def load(self, *, members: int = MEMBERS, rate: int = RATE, life_ms: int = 0) -> Iterator[None]:
        """On each path; every member has spoken when the block begins, and none is there any more when it ended."""
        first = self._begin(members=1, rate=0)  # one on each path: only what comes after it may go past the engine
        self._await(first, 1)
        for load in first.values():
            load.end()
        self.loads = self._begin(members=members, rate=rate, life_ms=life_ms)
        try:
            self._await(self.loads, members)
            yield
        finally:
            for load in self.loads.values():
                load.end()

    def _begin(self, *, members: int, rate: int, life_ms: int = 0) -> dict[str, Load]:
        return {
            path: Load(self.mesh, "shop/driver", self.mesh.ip(to), members=members, rate=rate, life_ms=life_ms)
            for path, to in PATHS.items()
        }

    @staticmethod
    def _await(loads: dict[str, Load], members: int) -> None:
        for load in loads.values():
            everybody = lambda load=load: load.tally().open == members  # noqa: E731
            eventually("everybody has spoken", everybody, within=20)

    def tally(self) -> dict[str, Tally]:
        """By path, since the last one."""
        return {path: load.tally() for path, load in self.loads.items()}


@contextlib.contextmanager
def scene(name: str, *, certificate_hours: float = 24.0) -> Iterator[Scene]:
    """A lab of its own, gone afterwards. As root."""
    mesh = Mesh(name)
    mesh.down()  # of a session that was killed
    target = f"{addressing.FABRIC4}:{PLANE_PORT}"
    program = Path(__file__).with_name("of_plane.py")
    agent = [sys.executable, str(program), target, f"{certificate_hours:g}"]
    plane = Plane(mesh)
    with mesh:
        helper = threading.Thread(target=_start_in_time, args=(mesh, plane))
        helper.start()
        try:
            mesh.begin(manifests(), agent=agent)
        finally:
            helper.join()
        try:
            yield Scene(mesh, plane)
        finally:
            plane.kill()
    assert not traces(name), traces(name)


def _start_in_time(mesh: Mesh, plane: Plane) -> None:
    """Agents need it before the lab is up, and it needs the lab's fabric."""
    eventually("the lab has a fabric", lambda: mesh.fabric_netns.exists() and mesh.layout.cluster.exists(), within=30)
    plane.start()
