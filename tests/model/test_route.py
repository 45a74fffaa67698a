"""plan(): where a connection goes, and what must not leave."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from ambient.model import mesh, route
from ambient.model.mesh import Locality, OutboundMode, TrafficDistribution

from .builders import IP, a_node, a_pod, a_service
from .routes import (
    BOTH_WAYS,
    CLIENT,
    EVERYWHERE,
    FAR,
    HTTP,
    NEAR,
    NODE,
    ONE_PORT,
    REGION,
    REQUIRED,
    SERVICE,
    STRICT,
    VIP,
    WAITING,
    WEB,
    ZONE,
    ask,
    chosen,
)

# --- Services


def test_a_vip_goes_to_every_ready_endpoint_at_its_own_target_port_with_its_identity() -> None:
    plan = ask(SERVICE, NEAR, replace(ZONE, service_account="web"))
    assert plan.service == SERVICE
    assert [(str(c.address), c.port, c.weight, str(c.identity)) for c in plan.choices] == [
        ("10.1.0.1", 8080, 1, "spiffe://cluster.local/ns/shop/sa/default"),
        ("10.1.0.2", 80, 1, "spiffe://cluster.local/ns/shop/sa/web"),
    ]


def test_an_endpoint_that_is_not_enrolled_or_on_the_hosts_network_is_dialled_in_the_clear() -> None:
    plan = ask(SERVICE, replace(NEAR, enrolled=False), replace(ZONE, host_network=True))
    assert [choice.identity for choice in plan.choices] == [None, None]


def test_endpoints_that_are_not_ready_are_left_out_unless_the_service_publishes_them() -> None:
    late = replace(ZONE, ready=False)
    assert chosen(ask(SERVICE, NEAR, late)) == {"near": 1}
    assert chosen(ask(replace(SERVICE, publish_not_ready=True), NEAR, late)) == {"near": 1, "zone": 1}


def test_while_none_is_ready_those_that_are_leaving_serve_on() -> None:
    leaving = replace(ZONE, ready=False, draining=True)
    assert chosen(ask(SERVICE, NEAR, leaving)) == {"near": 1}
    assert chosen(ask(SERVICE, replace(NEAR, ready=False), leaving)) == {"zone": 1}
    local = replace(SERVICE, local_only=True)
    assert ask(local, replace(NEAR, ready=False), leaving).reason == "no_healthy_endpoint"
    assert chosen(ask(local, ZONE, replace(leaving, node=CLIENT.node))) == {"zone": 1}


def test_an_endpoint_without_the_named_port_is_left_out() -> None:
    assert chosen(ask(SERVICE, NEAR, replace(ZONE, ports={}))) == {"near": 1}


@pytest.mark.parametrize(
    "nouns",
    [
        [SERVICE],
        [SERVICE, replace(NEAR, ready=False)],
        [SERVICE, replace(NEAR, ports={})],
        [replace(SERVICE, local_only=True), ZONE],
    ],
    ids=["none", "none ready", "none with the port", "none on this node"],
)
def test_a_service_without_a_usable_endpoint_refuses(nouns: list[Any]) -> None:
    plan = ask(*nouns)
    assert plan.reason == "no_healthy_endpoint"
    assert "shop/web" in plan.why


def test_a_port_that_the_service_does_not_have_refuses_and_names_those_it_has() -> None:
    plan = ask(SERVICE, NEAR, port=8080)
    assert (plan.reason, plan.why) == ("no_such_port", "Service shop/web has no port 8080, its ports are: 80")


def test_a_service_without_a_selector_is_left_to_the_cluster() -> None:
    """default/kubernetes: the API server's endpoints are no pods of the mesh."""
    assert isinstance(ask(replace(SERVICE, selector={})), route.Passthrough)


def test_endpoints_of_the_vips_family_are_preferred() -> None:
    both = replace(NEAR, addresses=(IP("10.1.0.1"), IP("fd00::1")))
    service = replace(SERVICE, vips=(IP(VIP), IP("fd96::1")))
    assert [str(c.address) for c in ask(service, both, ZONE).choices] == ["10.1.0.1", "10.1.0.2"]
    assert [str(c.address) for c in ask(service, both, ZONE, to="fd96::1").choices] == ["fd00::1"]
    assert [str(c.address) for c in ask(service, ZONE, to="fd96::1").choices] == ["10.1.0.2"]


def test_a_pod_that_reaches_itself_through_a_vip_stays_inside() -> None:
    client = replace(CLIENT, namespace="shop", labels=WEB, ports=HTTP)
    (choice,) = ask(SERVICE, client=client).choices
    assert (choice.workload, choice.identity) == (client, None)
    required = mesh.Namespace(name="shop", require_mtls=True)
    assert chosen(ask(SERVICE, required, client=client)) == {"cart": 1}


PREFER = {
    "any": (TrafficDistribution.ANY, {"far": 1, "near": 1, "region": 1, "zone": 1}),
    "zone": (TrafficDistribution.SAME_ZONE, {"near": 1, "zone": 1, "region": 0, "far": 0}),
    "node": (TrafficDistribution.SAME_NODE, {"near": 1, "zone": 0, "region": 0}),
}


@pytest.mark.parametrize(("distribution", "weights"), PREFER.values(), ids=PREFER.keys())
def test_the_closest_endpoints_are_preferred_and_a_few_others_stand_by(
    distribution: TrafficDistribution, weights: dict[str, int]
) -> None:
    plan = ask(*EVERYWHERE, replace(SERVICE, distribution=distribution))
    assert chosen(plan) == weights
    assert list(chosen(plan)) == list(weights)


WIDER = {
    "node to zone": (TrafficDistribution.SAME_NODE, [ZONE, REGION, FAR], "zone"),
    "node to region": (TrafficDistribution.SAME_NODE, [REGION, FAR], "region"),
    "zone to region": (TrafficDistribution.SAME_ZONE, [REGION, FAR], "region"),
    "zone to anywhere": (TrafficDistribution.SAME_ZONE, [FAR], "far"),
}


@pytest.mark.parametrize(("distribution", "pods", "first"), WIDER.values(), ids=WIDER.keys())
def test_without_a_close_endpoint_a_wider_circle_is_taken(
    distribution: TrafficDistribution, pods: list[mesh.Workload], first: str
) -> None:
    weights = chosen(ask(replace(SERVICE, distribution=distribution), *pods))
    assert [name for name, weight in weights.items() if weight] == [first]


def test_a_zone_without_a_region_is_a_zone_and_an_unknown_one_is_nobodys() -> None:
    service = replace(SERVICE, distribution=TrafficDistribution.SAME_ZONE)
    client = replace(CLIENT, locality=Locality("", "a"))
    pods = [replace(NEAR, locality=Locality("", "b")), replace(ZONE, locality=Locality("", "a"))]
    assert chosen(ask(service, *pods, client=client)) == {"zone": 1, "near": 0}
    nowhere = [replace(pod, locality=Locality()) for pod in pods]
    assert chosen(ask(service, *nowhere, client=replace(client, locality=Locality()))) == {"near": 1, "zone": 1}


def test_internal_traffic_policy_local_never_leaves_the_node() -> None:
    assert chosen(ask(*EVERYWHERE, replace(SERVICE, local_only=True))) == {"near": 1}


def aside(*pods: mesh.Workload) -> set[tuple[mesh.IPAddress, int]]:
    return {(pod.addresses[0], pod.ports["http"]) for pod in pods}


def test_an_endpoint_set_aside_is_only_for_when_the_others_failed() -> None:
    assert chosen(ask(SERVICE, NEAR, ZONE, avoid=aside(NEAR))) == {"zone": 1, "near": 0}


def test_when_all_are_set_aside_none_is() -> None:
    assert chosen(ask(SERVICE, NEAR, ZONE, avoid=aside(NEAR, ZONE))) == {"near": 1, "zone": 1}


def test_a_farther_endpoint_that_works_is_better_than_a_near_one_set_aside() -> None:
    service = replace(SERVICE, distribution=TrafficDistribution.SAME_ZONE)
    assert chosen(ask(service, NEAR, REGION, FAR, avoid=aside(NEAR))) == {"region": 1, "far": 0, "near": 0}


# --- pods, nodes and the unknown


def test_a_pods_address_goes_to_that_pod_at_that_port_ready_or_not() -> None:
    plan = ask(replace(NEAR, ready=False), to="10.1.0.1", port=1234)
    (choice,) = plan.choices
    assert (str(choice.address), choice.port) == ("10.1.0.1", 1234)
    assert choice.identity == NEAR.identity("cluster.local")
    assert plan.service is None


def test_a_pods_address_is_told_as_the_headless_service_that_must_have_been_meant() -> None:
    headless = replace(SERVICE, name="peers", vips=())
    assert ask(NEAR, headless, SERVICE, to="10.1.0.1", port=8080).service == headless
    assert ask(NEAR, headless, to="10.1.0.1", port=9).service is None
    assert ask(NEAR, headless, replace(headless, name="more"), to="10.1.0.1", port=8080).service is None
    assert "svcs:shop" in ask(NEAR, to="10.1.0.1", port=8080).deps, "one may come"


def test_a_pod_that_is_not_enrolled_is_dialled_in_the_clear() -> None:
    (choice,) = ask(replace(NEAR, enrolled=False), to="10.1.0.1", port=8080).choices
    assert choice.identity is None


@pytest.mark.parametrize("to", ["10.1.0.9", "127.0.0.1", "::1"])
def test_a_pod_talks_to_itself_without_the_mesh(to: str) -> None:
    assert isinstance(ask(REQUIRED, to=to), route.Passthrough)


def test_nodes_and_host_network_pods_are_outside_the_mesh() -> None:
    host = a_pod("kube-system/api", "10.0.0.1", host_network=True, enrolled=False)
    config = mesh.MeshConfig(outbound=OutboundMode.REGISTRY_ONLY)
    assert isinstance(ask(NODE, host, REQUIRED, to="10.0.0.1", port=6443, config=config), route.Passthrough)


@pytest.mark.parametrize(
    ("of_mesh", "of_namespace", "refused"),
    [
        (OutboundMode.ALLOW_ANY, None, False),
        (OutboundMode.REGISTRY_ONLY, None, True),
        (OutboundMode.ALLOW_ANY, OutboundMode.REGISTRY_ONLY, True),
        (OutboundMode.REGISTRY_ONLY, OutboundMode.ALLOW_ANY, False),
    ],
)
def test_the_unknown_is_passed_through_unless_only_the_registry_is_wanted(
    of_mesh: OutboundMode, of_namespace: OutboundMode | None, refused: bool
) -> None:
    namespace = mesh.Namespace(name="front", outbound=of_namespace)
    plan = ask(namespace, to="93.184.216.34", port=443, config=mesh.MeshConfig(outbound=of_mesh))
    assert isinstance(plan, route.Refuse) is refused
    assert not refused or plan.reason == "not_in_registry"


ROOMY = a_node("n2", pods=("10.1.0.0/24", "fd00:1::/64"))


@pytest.mark.parametrize("of_mesh", OutboundMode)
@pytest.mark.parametrize("to", ["10.1.0.77", "fd00:1::77"])
def test_an_address_of_a_pod_network_that_no_pod_is_known_to_have_is_not_outside_the_mesh(
    to: str, of_mesh: OutboundMode
) -> None:
    plan = ask(ROOMY, to=to, config=mesh.MeshConfig(outbound=of_mesh))
    assert (type(plan), plan.reason) == (route.Refuse, "unknown_pod")
    assert to in plan.why


def test_beside_a_pod_network_and_in_it_the_known_is_as_ever() -> None:
    assert isinstance(ask(ROOMY, to="10.1.1.1"), route.Passthrough)
    assert chosen(ask(ROOMY, NEAR, to="10.1.0.1")) == {"near": 1}
    assert isinstance(ask(ROOMY, a_node("n3", "10.1.0.1"), to="10.1.0.1"), route.Passthrough)


def test_the_nodes_own_addresses_are_nobodys_pods() -> None:
    assert isinstance(ask(ROOMY, to="10.1.0.1", host={IP("10.1.0.1")}), route.Passthrough)
    assert ask(ROOMY, to="10.1.0.2", host={IP("10.1.0.1")}).reason == "unknown_pod"


def test_what_a_policy_lists_may_be_of_a_pod_network() -> None:
    listed = mesh.Destinations(networks=(ipaddress.ip_network("10.1.0.77/32"),), ports=frozenset({80}))
    only = mesh.TrafficPolicy(namespace="front", name="p", outbound=OutboundMode.REGISTRY_ONLY, allowed=(listed,))
    assert isinstance(ask(ROOMY, only, to="10.1.0.77"), route.Passthrough)
    assert ask(ROOMY, only, to="10.1.0.77", port=81).reason == "unknown_pod"


def test_registry_only_does_not_stop_what_is_in_the_registry() -> None:
    only = mesh.Namespace(name="front", outbound=OutboundMode.REGISTRY_ONLY)
    assert isinstance(ask(only, SERVICE, NEAR), route.Carry)
    assert isinstance(ask(only, NEAR, to="10.1.0.1"), route.Carry)


def test_where_mtls_is_required_no_pod_is_dialled_in_the_clear() -> None:
    plain = replace(NEAR, enrolled=False)
    for plan in (ask(REQUIRED, plain, to="10.1.0.1"), ask(REQUIRED, SERVICE, plain)):
        assert plan.reason == "mtls_required"
        assert "front" in plan.why
    assert chosen(ask(REQUIRED, SERVICE, plain, ZONE)) == {"zone": 1}
    assert chosen(ask(REQUIRED, NEAR, to="10.1.0.1")) == {"near": 1}


def test_where_mtls_is_required_an_enrolled_endpoint_far_away_beats_a_plain_one_near() -> None:
    service = replace(SERVICE, distribution=TrafficDistribution.SAME_ZONE)
    assert chosen(ask(REQUIRED, service, replace(NEAR, enrolled=False), FAR)) == {"far": 1}


@BOTH_WAYS
def test_a_pod_that_is_enrolled_but_not_captured_yet_is_dialled_in_the_clear(to: str, port: int) -> None:
    (choice,) = ask(SERVICE, WAITING, to=to, port=port).choices
    assert (choice.workload, choice.identity) == (WAITING, None)


@BOTH_WAYS
@pytest.mark.parametrize("strict", [STRICT, ONE_PORT], ids=["everywhere", "on this port"])
def test_but_not_where_it_is_strict(to: str, port: int, strict: Any) -> None:
    plan = ask(SERVICE, WAITING, strict, to=to, port=port)
    assert plan.reason == "mtls_required"
    assert "pod shop/near is enrolled but not captured yet, and PeerAuthentication shop/strict" in plan.why


def test_nor_where_mtls_is_required() -> None:
    plan = ask(REQUIRED, SERVICE, WAITING)
    assert plan.reason == "mtls_required"
    assert "not captured yet, and namespace front requires mutual TLS" in plan.why


@pytest.mark.parametrize("reason", [STRICT, REQUIRED], ids=["strict", "required"])
def test_captured_endpoints_go_before_those_that_must_wait(reason: Any) -> None:
    assert chosen(ask(reason, SERVICE, WAITING, FAR)) == {"far": 1}


def test_plaintext_to_a_pod_outside_the_mesh_is_no_matter_of_its_peer_authentication() -> None:
    assert chosen(ask(SERVICE, replace(WAITING, enrolled=False), STRICT)) == {"near": 1}


@pytest.mark.parametrize(
    "twin", [a_pod("x/twin", "10.1.0.1"), a_service("x/twin", "10.1.0.1")], ids=["two pods", "a pod and a VIP"]
)
def test_an_address_with_two_owners_is_refused(twin: Any) -> None:
    assert ask(NEAR, twin, to="10.1.0.1").reason == "ambiguous_address"
