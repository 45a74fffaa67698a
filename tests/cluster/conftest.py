"""Fixtures of the cluster lane: one cluster for the session, its images, a namespace per test, nothing left behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kube import Cluster, ClusterError, components, down, layout
from tests.cluster import mesh as installed
from tests.cluster.manifests import ENROL, server, service
from tests.cluster.space import Space
from tests.cluster.traces import traces
from tests.mesh.waiting import eventually

ROOT = Path(__file__).parents[2]
IMAGES = [ROOT / "build/image" / f"{name}.tar" for name in ("ambient", "ambient-test-app")]
KEPT = ROOT / "build/kube-logs"  # of a session with failures: the cluster itself is gone
SHOP = "shop"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(240))  # what takes seconds alone may wait for a loaded machine
    items.sort(key=lambda item: "bare_machine" in getattr(item, "fixturenames", ()), reverse=True)  # stable


@pytest.fixture(scope="session")
def programs() -> None:
    """Kubernetes' programs are built."""
    try:
        components.built()
    except ClusterError as error:
        pytest.skip(str(error))


@pytest.fixture
def bare_machine(programs: None) -> Iterator[None]:  # noqa: ARG001 - it takes them to make a cluster
    """There is no cluster before and none after the test. Tests that ask for this run before the session has one."""
    down()
    yield
    down()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, programs: None) -> Iterator[Cluster]:  # noqa: ARG001 - skips without
    """Two nodes, Ready, with the images. Whatever a killed session left is removed first."""
    if missing := [str(image) for image in IMAGES if not image.exists()]:
        pytest.skip(f"{' and '.join(missing)} is not there: make image test-image")
    down()
    cluster = Cluster()
    try:
        cluster.up(IMAGES)
        yield cluster
    finally:
        if request.session.testsfailed:
            keep_logs(cluster)
        kill_some(cluster)
        down()
    assert not traces()


def keep_logs(cluster: Cluster) -> None:
    shutil.rmtree(KEPT, ignore_errors=True)
    shutil.copytree(layout.LOGS, KEPT)
    try:
        state = cluster.kubectl("get", "nodes,pods,events", "--all-namespaces", "--output=wide")
    except ClusterError as error:  # it may be what failed
        state = str(error)
    (KEPT / "state.txt").write_text(state)
    print(f"\nthe cluster's logs are in {KEPT}")


def kill_some(cluster: Cluster) -> None:
    """`down` owes nothing to whom it ends: kill -9 a runtime, a whole node's first process and etcd before."""
    one, two, *_ = cluster.nodes.values()
    with contextlib.suppress(ClusterError):  # what did not come up cannot be killed
        for pid in [*one.containerd.pids(), *cluster.control_plane.etcd.pids(), two.init]:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Callable[..., str]:
    """kubectl as the cluster's admin: words in, what it printed out."""
    return cluster.kubectl


@pytest.fixture(scope="session")
def shop(cluster: Cluster) -> Space:
    """For tests that only look: a server on each node (web-1, web-2) behind the services `web` and `web-headless`, and
    a client on the first node."""
    space = Space(cluster, SHOP)
    space.create()
    labels = {"app": "web"}
    space.apply(service("web"), service("web-headless", selects="web", headless=True))
    space.run(
        server("web-1", "node1", labels=labels), server("web-2", "node2", labels=labels), server("client", "node1")
    )
    with space.puppet("client") as client:  # kube-proxy follows a second later than the pods are Ready
        answered = lambda: {client.ask("web", 80, family=family).error for family in (4, 6)} == {""}  # noqa: E731
        eventually("an answer of the service", answered)
    return space


_numbers = itertools.count(1)


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Space]:
    """A new namespace for a test that changes things; nobody waits for its end."""
    space = Space(cluster, f"test-{next(_numbers)}")
    space.create()
    yield space
    cluster.kubectl("delete", "namespace", space.name, "--wait=false")


@pytest.fixture(scope="module")
def mesh(cluster: Cluster) -> Iterator[installed.Mesh]:
    """The mesh, as users install it, for the tests of one module."""
    with installed.Mesh(cluster, ROOT / "daemonset.yaml") as mesh:
        yield mesh


@pytest.fixture
def talking(mesh: installed.Mesh, cluster: Cluster) -> Iterator[Space]:
    """A namespace of the mesh with a client and, on the other node, a server."""
    del mesh  # only to be there
    space = Space(cluster, "talking")
    space.create()
    space.run(server("web", "node2"), server("client", "node1"))
    cluster.kubectl("label", "namespace", space.name, ENROL)
    eventually("every pod is captured", lambda: space.captured() == {"web", "client"}, within=30)
    yield space
    cluster.kubectl("delete", "namespace", space.name)
