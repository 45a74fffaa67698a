"""istiod's resources, made by hand with Istio's field numbers, become Worlds that route and judge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.model import mesh, policy, route
from ambient.model.mesh import TrafficDistribution
from ambient.xds import names
from ambient.xds.picture import Picture
from ambient.xds.proto import discovery_pb2 as pb
from tests.model.builders import IP, a_rule

from . import wire

REGION, ZONE, SUBZONE, NODE, NETWORK = 1, 2, 3, 4, 6  # of LoadBalancing
STRICT, FAILOVER, PASSTHROUGH = 1, 2, 3


def from_istiod(authorizations: list[wire.Fields], addresses: list[wire.Fields]) -> Picture:
    """A picture of what istiod would send: no details of ours, no Nouns, one response for each type."""
    picture = Picture(mesh.MeshConfig())
    picture.connect(pb.Node(id="n"))
    for type_url, found in ((names.AUTHORIZATION, authorizations), (names.ADDRESS, addresses)):
        resources = [{3: named(fields), 1: "v1", 2: {1: type_url, 2: wire.encode(fields)}} for fields in found]
        response = wire.encode({1: "2026/1", 2: resources, 4: type_url, 5: "n1", 7: {1: '{"Component":"istiod"}'}})
        answer, _ = picture.receive(pb.DeltaDiscoveryResponse.FromString(response))
        assert not answer.HasField("error_detail"), answer
    return picture


def named(fields: wire.Fields) -> str:
    if isinstance(fields.get(1), dict):
        return str(fields[1][20])
    return f"{fields[2][2]}/{fields[2][3]}" if isinstance(fields[2], dict) else f"{fields[2]}/{fields[1]}"


def istio_pod(key: str, ip: str, services: wire.Fields | None = None, **more: Any) -> wire.Fields:
    """more: f5=1 for field 5."""
    namespace, name = key.split("/")
    fields = {1: name, 2: namespace, 3: [IP(ip).packed], 5: 1, 9: "n1", 13: name.partition("-")[0], 18: "Kubernetes"}
    fields |= {20: f"Kubernetes//Pod/{key}", **({22: services} if services else {})}
    return {1: fields | {int(number[1:]): value for number, value in more.items()}}


WEB_HOST = "shop/web.shop.svc.cluster.local"
ISTIO_SERVICE = {
    2: {
        1: "web",
        2: "shop",
        3: "web.shop.svc.cluster.local",
        4: {2: IP("10.96.0.1").packed},
        5: [{1: 80, 2: 0}],
        8: {1: [NETWORK, REGION, ZONE], 2: FAILOVER, 3: 1},
        11: 1,
    }
}


def behind_web(target: int) -> wire.Fields:
    return {1: WEB_HOST, 2: {1: {1: 80, 2: target}}}


def test_istiods_workloads_and_services_make_a_world_that_routes() -> None:
    world = from_istiod(
        [],
        [
            istio_pod("shop/web-1", "10.1.0.1", behind_web(8080)),
            istio_pod("shop/web-2", "10.1.0.2", behind_web(9090), f5=0),
            istio_pod("shop/web-3", "10.1.0.3", behind_web(8080), f17=1, f7="web"),
            istio_pod("front/cart-1", "10.1.0.4", f24={1: "home", 2: "a"}),
            ISTIO_SERVICE,
        ],
    ).world
    assert world is not None
    assert world.revision == "2026/1"
    web, cart = world.workloads["shop/web-3"], world.workloads["front/cart-1"]
    assert (web.service_account, web.ready, web.enrolled, web.owner) == ("web", False, True, "web")
    assert (cart.service_account, cart.locality) == ("default", mesh.Locality("home", "a"))
    service = world.services["shop/web"]
    assert (service.distribution, service.publish_not_ready) == (TrafficDistribution.SAME_ZONE, True)
    plan = route.plan(world, cart, IP("10.96.0.1"), 80)
    assert isinstance(plan, route.Carry)
    assert {(str(choice.address), choice.port, choice.identity is not None) for choice in plan.choices} == {
        ("10.1.0.1", 8080, True),
        ("10.1.0.2", 9090, False),
        ("10.1.0.3", 8080, True),
    }


@pytest.mark.parametrize(
    ("balancing", "expected"),
    [
        ({1: [NODE], 2: STRICT}, {"local_only": True}),
        ({1: [NETWORK, REGION, ZONE, SUBZONE, NODE], 2: FAILOVER}, {"distribution": TrafficDistribution.SAME_NODE}),
        ({2: PASSTHROUGH}, {"selector": {}}),
        ({}, {}),
    ],
    ids=["strict node", "same node", "passthrough", "none"],
)
def test_istiods_load_balancing_is_understood(balancing: wire.Fields, expected: dict[str, Any]) -> None:
    world = from_istiod([], [{2: {**ISTIO_SERVICE[2], 8: balancing}}]).world
    assert world is not None
    service = world.services["shop/web"]
    neutral = {"local_only": False, "distribution": TrafficDistribution.ANY, "publish_not_ready": False}
    assert service == replace(service, **neutral | expected)
    assert bool(service.selector) == ("selector" not in expected)


def test_a_service_entry_is_called_by_its_hostname() -> None:
    entry = {2: {1: "external", 2: "shop", 3: "api.example.com", 4: {2: IP("240.0.0.1").packed}}}
    world = from_istiod([], [entry]).world
    assert world is not None
    assert world.service_at(IP("240.0.0.1")) == world.services["shop/api.example.com"]


def strict_policy() -> wire.Fields:
    no_identity = {1: {2: {4: {4: b""}}}}
    return {1: "istio_converted_static_strict", 2: "istio-system", 3: 2, 4: 1, 5: no_identity}


def test_istiods_policies_hold_for_those_that_list_them() -> None:
    deny_port = {1: "no-9000", 2: "shop", 3: 2, 4: 1, 5: {1: {2: {9: 9000}}}}
    everyone = {1: "nobody-from-evil", 2: "istio-system", 3: 0, 4: 1, 5: {1: {2: {1: {1: "evil"}}}}}
    world = from_istiod(
        [strict_policy(), deny_port, everyone],
        [
            istio_pod(
                "shop/web-1",
                "10.1.0.1",
                f16=["shop/no-9000", "istio-system/istio_converted_static_strict"],
                f26={1: "somebody's", 2: {1: "type.googleapis.com/their.Extension", 2: b"x"}},
            ),
            istio_pod("shop/api-1", "10.1.0.2"),
            istio_pod("front/cart-1", "10.1.0.4"),
            istio_pod("evil/mole-1", "10.1.0.5"),
        ],
    ).world
    assert world is not None
    assert world.mesh.root_namespace == "istio-system"

    def may(server: str, client: str, port: int = 80, *, tls: bool = True) -> bool:
        pod, source = world.workloads[server], world.workloads[client]
        peer = source.identity("cluster.local") if tls else None
        verdict = policy.decide(world, pod, peer=peer, source=source.addresses[0], to=pod.addresses[0], port=port)
        return isinstance(verdict, policy.Allow)

    assert may("shop/web-1", "front/cart-1")
    assert not may("shop/web-1", "front/cart-1", tls=False)
    assert not may("shop/web-1", "front/cart-1", 9000)
    assert may("shop/api-1", "front/cart-1", 9000)
    assert may("shop/api-1", "front/cart-1", tls=False)
    assert not may("shop/api-1", "evil/mole-1")


def test_a_clause_without_matches_holds_as_it_does_for_ztunnel() -> None:
    policy_ = {1: "p", 2: "shop", 3: 1, 4: 1, 5: {1: [{}, {2: {9: 80}}]}}
    world = from_istiod([policy_], []).world
    assert world is not None
    assert world.policies["shop/p"].rules == (a_rule(mesh.Match(destination_ports=(80,))),)


def test_nodes_are_told_by_their_host_network_pods() -> None:
    picture = from_istiod(
        [],
        [
            istio_pod("kube-system/proxy-1", "10.0.0.1", f25=1, f24={1: "home", 2: "a"}),
            istio_pod("kube-system/cni-1", "10.0.0.1", f25=1),
            istio_pod("shop/web-1", "10.1.0.1"),
            istio_pod("shop/web-2", "10.1.0.2", f9="n2"),
        ],
    )
    world = picture.world
    assert world is not None
    assert world.node_at(IP("10.0.0.1")) == world.nodes["n1"]
    assert world.nodes.keys() == {"n1", "n2"}
    assert picture.problems == ()


def test_a_node_goes_with_the_last_of_its_pods() -> None:
    picture = from_istiod([], [istio_pod("kube-system/proxy-1", "10.0.0.1", f25=1)])
    gone = wire.encode({4: names.ADDRESS, 5: "n2", 6: "Kubernetes//Pod/kube-system/proxy-1"})
    _, world = picture.receive(pb.DeltaDiscoveryResponse.FromString(gone))
    assert world is not None
    assert world.nodes == world.workloads == {}
