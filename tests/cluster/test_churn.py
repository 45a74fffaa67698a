"""Deployments rolled, scaled and robbed of pods under load: no request fails that would not without the mesh."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from hack.kube import Cluster
from tests.cluster import churn
from tests.cluster.manifests import server
from tests.cluster.mesh import Mesh
from tests.cluster.space import Space
from tests.cluster.test_mesh import captured
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
ENOUGH = 200  # requests of each client
MARGIN_S = 1.0


def measured(space: Space, scenario: str) -> Counter[str]:
    """How requests failed while it went on."""
    with churn.load(space) as loads:
        churn.SCENARIOS[scenario](space)
    print(f"{space.name}, {scenario}: {loads}")
    assert all(load.worked >= ENOUGH for load in loads)
    return Counter(error for load in loads for error in load.failed)


@pytest.fixture(scope="module")
def without_mesh(cluster: Cluster) -> Iterator[dict[str, Counter[str]]]:
    """What fails by scenario, before there is a mesh."""
    space = Space(cluster, "churn-plain")
    space.create()
    churn.furnish(space)
    space.apply(churn.deployment(churn.FEW))
    churn.settled(space, churn.FEW)
    yield {scenario: measured(space, scenario) for scenario in churn.SCENARIOS}
    cluster.kubectl("delete", "namespace", space.name, "--wait=false")


@pytest.fixture(scope="module")
def enrolled(without_mesh: dict[str, Counter[str]], mesh: Mesh, cluster: Cluster) -> Iterator[Space]:
    del without_mesh, mesh  # the one measured, then the other there
    space = Space(cluster, "churn-mesh")
    space.create(**{"ambient.dev/mode": "enabled"})
    churn.furnish(space)
    space.apply(churn.deployment(churn.FEW))
    churn.settled(space, churn.FEW)
    yield space
    cluster.kubectl("delete", "namespace", space.name, "--wait=false")


@pytest.mark.parametrize("scenario", churn.SCENARIOS)
def test_no_request_fails_that_would_not_without_the_mesh(
    enrolled: Space, without_mesh: dict[str, Counter[str]], scenario: str
) -> None:
    failed = measured(enrolled, scenario)
    assert failed.total() <= without_mesh[scenario].total(), (failed, without_mesh[scenario])
    eventually("those that came are captured", lambda: captured(enrolled) >= {churn.STANDING, *churn.pods(enrolled)})


def test_a_pod_that_was_told_to_end_keeps_its_connections_and_makes_new_ones(enrolled: Space) -> None:
    enrolled.run(churn.lingering(server("leaving", "node1")))
    eventually("it is captured", lambda: "leaving" in captured(enrolled))
    ip = enrolled.ips("leaving")[0]
    with enrolled.puppet("far") as far, enrolled.puppet("leaving", without_api=True) as leaving:
        assert not far.open("chat", ip, 8080).error
        assert not far.say("chat", "echo before").error
        enrolled.kubectl("delete", "pod/leaving", "--wait=false")
        told = time.monotonic()
        asked = 0
        while time.monotonic() < told + churn.LINGER_S - MARGIN_S:
            assert not far.say("chat", "echo meanwhile").error
            assert not leaving.ask(enrolled.ips(churn.STANDING)[0], 8080).error
            asked += 1
        assert asked > 1
        assert far.do("ended", name="chat", timeout=30).how in {"closed", "reset"}
