"""The mesh is upgraded while pods talk: no connection is cut, none is refused, old engines leave with their last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.kube import Cluster
from tests.cluster.manifests import ENROL, server
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.mesh.puppets import Puppet
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
MEMBERS, RATE = 50, 50
ENGINE, AGENT, CONTROL = "daemonset/ambient-engine", "daemonset/ambient-agent", "deployment/ambient-control"


@pytest.fixture(scope="module")
def crowded(mesh: Mesh, cluster: Cluster) -> Iterator[Space]:
    """A client and, on the other node, a server."""
    del mesh  # only to be there
    space = Space(cluster, "crowded")
    space.create()
    space.run(server("sink", "node2"), server("crowd", "node1"))
    cluster.kubectl("label", "namespace", space.name, ENROL)
    eventually("every pod is captured", lambda: space.captured() == {"sink", "crowd"}, within=30)
    yield space
    cluster.kubectl("delete", "namespace", space.name)


def engines(cluster: Cluster) -> dict[str, bool]:
    """The engines' pods: is each to stay?"""
    rows = cluster.get("--namespace", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=ambient-engine")["items"]
    return {row["metadata"]["name"]: "deletionTimestamp" not in row["metadata"] for row in rows}


def rush(puppet: Puppet, to: str) -> None:
    assert puppet.do("rush", to=to, ports=[8080], members=MEMBERS, rate=RATE).lost == {}


def more(puppet: Puppet) -> None:
    """Some seconds' worth of newcomers."""
    came = puppet.do("rush_so_far").came
    eventually("newcomers", lambda: puppet.do("rush_so_far").came > came + 2 * RATE, within=30)


@pytest.mark.parametrize(
    "what",
    [[ENGINE], [CONTROL, AGENT, ENGINE], []],
    ids=["the engines start again", "all of it starts again", "all of it has another image"],
)
def test_a_rollout_under_load_costs_no_connection(
    crowded: Space, cluster: Cluster, mesh: Mesh, what: list[str]
) -> None:
    before = engines(cluster)
    with crowded.puppet("crowd") as puppet:
        rush(puppet, crowded.ips("sink")[0])
        more(puppet)
        if what:
            cluster.kubectl("--namespace", NAMESPACE, "rollout", "restart", *what)
        else:
            mesh.apply(tag="next")
        mesh.await_rollout()
        more(puppet)
        now = engines(cluster)
        assert [now.get(name) for name in before] == [False] * len(before), "the old ones carry what they had"
        assert sum(now.values()) == len(cluster.nodes)
        told = puppet.do("rush_so_far")
        assert (told.lost, told.failed) == ({}, {}), told
        after = puppet.do("rush_ends")
        print(f"\n{after.said} messages, {after.came} new connections; longest stall {told.stall:.2f} s")
        assert (after.lost, after.failed) == ({}, {}), after
    eventually("the old ones left", lambda: set(engines(cluster)).isdisjoint(before), within=30)
