"""The guard of the nodes' network on a real one: it is steady while nothing changes, and misses nothing that does."""

from __future__ import annotations

import pytest

from hack.kube import Cluster
from tests.cluster.footprint import Footprint, differences, footprint, settled
from tests.cluster.manifests import server, service
from tests.cluster.space import Space
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
TOUCHES = {
    "a rule of iptables": ("iptables -I FORWARD -s 192.0.2.1 -j DROP", "iptables -D FORWARD -s 192.0.2.1 -j DROP"),
    "a rule among kube-proxy's": (
        "iptables -t nat -A KUBE-SERVICES -s 192.0.2.1 -j RETURN",
        "iptables -t nat -D KUBE-SERVICES -s 192.0.2.1 -j RETURN",
    ),
    "a route": ("ip route add 192.0.2.0/24 dev lo", "ip route del 192.0.2.0/24 dev lo"),
    "a routing rule": ("ip -6 rule add fwmark 7 lookup 7", "ip -6 rule del fwmark 7 lookup 7"),
    "a link": ("ip link add foreign type bridge", "ip link del foreign"),
}


@pytest.fixture(scope="module")
def before(cluster: Cluster, shop: Space) -> Footprint:  # noqa: ARG001 - with something in it to be kept
    return settled(cluster, without="nobody")


def test_what_another_namespace_brings_is_not_counted(cluster: Cluster, shop: Space, space: Space) -> None:
    before = settled(cluster, without=space.name)
    assert any("KUBE-SVC-" in line for line in before["node1 iptables"])
    space.apply(service("other"))
    space.run(server("other", "node1"), server("far", "node2", labels={"app": "other"}))
    vip = space.get("service", "other")["spec"]["clusterIP"]
    with shop.puppet("client") as client:
        eventually("the other service", lambda: not client.ask(vip, 80).error)
    assert differences(before, settled(cluster, without=space.name)) == []


@pytest.mark.parametrize("touch", TOUCHES)
def test_the_guard_sees(cluster: Cluster, before: Footprint, touch: str) -> None:
    do, undo = TOUCHES[touch]
    node = cluster.nodes["node2"]
    node.run(do.split())
    try:
        found = differences(before, footprint(cluster, without="nobody"))
    finally:
        node.run(undo.split())
    assert found
    assert all(line.startswith("node2 ") for line in found)
    assert differences(before, footprint(cluster, without="nobody")) == []
