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
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
ENOUGH = 200  # requests of each client
A_FEW = 10  # of thousands: kube-proxy is late now and then
MARGIN_S = 1.0


class Churned:
    """A furnished namespace, and how requests failed in it while a scenario went on."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._failed: dict[str, Counter[str]] = {}

    def failed(self, scenario: str) -> Counter[str]:
        """Measured when it is first asked for."""
        if scenario not in self._failed:
            self._failed[scenario] = self.measure(scenario)
        return self._failed[scenario]

    def measure(self, scenario: str) -> Counter[str]:
        with churn.load(self.space) as loads:
            churn.SCENARIOS[scenario](self.space)
        print(f"{self.space.name}, {scenario}: {loads}")
        assert all(load.worked >= ENOUGH for load in loads)
        return Counter(error for load in loads for error in load.failed)


def furnished(cluster: Cluster, name: str, **labels: str) -> Iterator[Churned]:
    space = Space(cluster, name)
    space.create(**labels)
    churn.furnish(space)
    space.apply(churn.deployment(churn.FEW))
    churn.settled(space, churn.FEW)
    yield Churned(space)
    cluster.kubectl("delete", "namespace", space.name, "--wait=false")


@pytest.fixture(scope="module")
def plain(cluster: Cluster) -> Iterator[Churned]:
    yield from furnished(cluster, "churn-plain")


@pytest.fixture(scope="module")
def enrolled(mesh: Mesh, cluster: Cluster) -> Iterator[Churned]:
    del mesh  # only to be there
    yield from furnished(cluster, "churn-mesh", **{"ambient.dev/mode": "enabled"})


@pytest.mark.parametrize("scenario", churn.SCENARIOS)
def test_before_there_is_a_mesh_nearly_every_request_works(plain: Churned, scenario: str) -> None:
    """How many do not is what the mesh is measured by."""
    assert plain.failed(scenario).total() <= A_FEW


@pytest.mark.parametrize("scenario", churn.SCENARIOS)
def test_no_request_fails_that_would_not_without_the_mesh(enrolled: Churned, plain: Churned, scenario: str) -> None:
    failed, before = enrolled.measure(scenario), plain.failed(scenario)
    # By chance, with a mesh or without. What goes directly the agent ends, when it hears that the server is no more.
    torn = min(failed["reset"] + failed["ECONNABORTED"], churn.TORN) if scenario == churn.SUDDEN else 0
    assert failed.total() - torn <= before.total(), (failed, before)
    everybody = lambda: enrolled.space.captured() >= {churn.STANDING, *churn.pods(enrolled.space)}  # noqa: E731
    eventually("those that came are captured", everybody)


def test_a_pod_that_was_told_to_end_keeps_its_connections_and_makes_new_ones(enrolled: Churned) -> None:
    space = enrolled.space
    space.run(churn.lingering(server("leaving", "node1")))
    eventually("it is captured", lambda: "leaving" in space.captured())
    ip = space.ips("leaving")[0]
    with space.puppet("far") as far, space.puppet("leaving", without_api=True) as leaving:
        assert not far.open("chat", ip, 8080).error
        assert not far.say("chat", "echo before").error
        space.kubectl("delete", "pod/leaving", "--wait=false")
        told = time.monotonic()
        asked = 0
        while time.monotonic() < told + churn.LINGER_S - MARGIN_S:
            assert not far.say("chat", "echo meanwhile").error
            assert not leaving.ask(space.ips(churn.STANDING)[0], 8080).error
            asked += 1
        assert asked > 1
        assert far.do("ended", name="chat", timeout=30).how in {"closed", "reset"}
