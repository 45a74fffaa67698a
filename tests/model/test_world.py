"""The World: look-ups, problems, and that changing one step by step gives what building it anew gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model import mesh
from ambient.model.world import World, diff

from .builders import IP, a_node, a_peer_authentication, a_pod, a_policy, a_service, a_world

WEB = a_pod("shop/web", "10.1.0.1", "fd00::1", labels={"app": "web"}, ports={"http": 8080})
SERVICE = a_service("shop/web", "10.96.0.1", target="http")
NODE = a_node("n1", "10.0.0.1")


def test_an_address_is_looked_up_as_what_it_is() -> None:
    world = a_world(WEB, SERVICE, NODE)
    assert world.workload_at(IP("10.1.0.1")) == world.workload_at(IP("fd00::1")) == WEB
    assert world.service_at(IP("10.96.0.1")) == SERVICE
    assert world.node_at(IP("10.0.0.1")) == NODE
    for ip in ("10.1.0.1", "10.0.0.1", "9.9.9.9"):
        assert world.service_at(IP(ip)) is None
    assert world.workload_at(IP("10.96.0.1")) is world.node_at(IP("10.96.0.1")) is None


def test_host_network_pods_are_not_found_by_their_nodes_address() -> None:
    world = a_world(NODE, a_pod("kube-system/api", "10.0.0.1", host_network=True))
    assert world.workload_at(IP("10.0.0.1")) is None
    assert world.node_at(IP("10.0.0.1")) == NODE
    assert world.problems() == []


def test_pods_are_listed_by_node_and_namespace_in_order() -> None:
    pods = [a_pod(key, node=node) for key, node in (("b/x", "n1"), ("a/y", "n1"), ("a/x", "n2"))]
    world = a_world(*pods)
    assert [pod.key for pod in world.workloads_on("n1")] == ["a/y", "b/x"]
    assert [pod.key for pod in world.workloads_in("a")] == ["a/x", "a/y"]
    assert world.workloads_on("n3") == world.workloads_in("c") == ()


def test_endpoints_are_every_address_of_every_selected_pod_with_its_own_target_ports() -> None:
    service = replace(
        SERVICE,
        ports=(
            mesh.ServicePort(name="http", port=80, target="http"),
            mesh.ServicePort(name="raw", port=81, target=9000),
        ),
    )
    old = a_pod("shop/old", "10.1.0.2", labels={"app": "web", "v": "1"}, ports={"http": 80}, ready=False)
    bare = a_pod("shop/bare", "10.1.0.3", labels={"app": "web"})
    elsewhere = a_pod("back/web", "10.1.0.4", labels={"app": "web"})
    found = a_world(WEB, old, bare, elsewhere, service).endpoints["shop/web"]
    assert [(e.workload, str(e.address), e.ready, dict(e.ports)) for e in found] == [
        ("shop/bare", "10.1.0.3", True, {81: 9000}),
        ("shop/old", "10.1.0.2", False, {80: 80, 81: 9000}),
        ("shop/web", "10.1.0.1", True, {80: 8080, 81: 9000}),
        ("shop/web", "fd00::1", True, {80: 8080, 81: 9000}),
    ]


@pytest.mark.parametrize(
    ("selector", "keys"),
    [
        ({}, ["shop/old", "shop/web"]),
        ({"app": "web"}, ["shop/old", "shop/web"]),
        ({"app": "web", "v": "1"}, ["shop/old"]),
    ],
    ids=["an empty one covers all", "one pair", "two pairs"],
)
def test_a_selector_covers_pods_of_its_namespace(selector: dict[str, str], keys: list[str]) -> None:
    world = a_world(WEB, a_pod("shop/old", labels={"app": "web", "v": "1"}), a_pod("back/web", labels={"app": "web"}))
    assert [pod.key for pod in world.covered("shop", selector)] == keys
    assert set(world.populated()) == {"shop", "back"}


def test_a_service_without_a_selector_has_no_endpoints() -> None:
    assert a_world(WEB, replace(SERVICE, selector={})).endpoints == {"shop/web": ()}


@pytest.mark.parametrize(
    ("nouns", "problems"),
    [
        pytest.param(
            [a_pod("a/x", "10.1.0.1"), a_pod("b/y", "10.1.0.1")],
            [
                "Pod a/x: status.podIPs: expected an address of its own, found 10.1.0.1, which Pod b/y has too",
                "Pod b/y: status.podIPs: expected an address of its own, found 10.1.0.1, which Pod a/x has too",
            ],
            id="two pods",
        ),
        pytest.param(
            [a_service("a/x", "10.96.0.1"), a_service("b/y", "10.96.0.1"), a_service("c/z", "10.96.0.1")],
            [
                "Service a/x: spec.clusterIPs: expected an address of its own, found 10.96.0.1, "
                "which Service b/y and Service c/z have too",
                "Service b/y: spec.clusterIPs: expected an address of its own, found 10.96.0.1, "
                "which Service a/x and Service c/z have too",
                "Service c/z: spec.clusterIPs: expected an address of its own, found 10.96.0.1, "
                "which Service a/x and Service b/y have too",
            ],
            id="three VIPs",
        ),
        pytest.param(
            [a_node("n2", "10.1.0.1"), a_pod("b/y", "10.1.0.1")],
            [
                "Node n2: status.addresses: expected an address of its own, found 10.1.0.1, which Pod b/y has too",
                "Pod b/y: status.podIPs: expected an address of its own, found 10.1.0.1, which Node n2 has too",
            ],
            id="a node and a pod",
        ),
        pytest.param(
            [a_pod("a/x", node="nowhere"), a_pod("a/y", node="nowhere")],
            [
                "Pod a/x: spec.nodeName: expected a Node that exists, found 'nowhere'",
                "Pod a/y: spec.nodeName: expected a Node that exists, found 'nowhere'",
            ],
            id="unknown node",
        ),
    ],
)
def test_a_contradiction_is_told_of_every_object_that_has_part_in_it(nouns: list[Any], problems: list[str]) -> None:
    assert [str(problem) for problem in a_world(NODE, *nouns).problems()] == problems


def test_a_contradiction_that_is_resolved_is_no_problem_any_more() -> None:
    world = a_world(NODE, WEB, a_pod("b/y", "10.1.0.1"))
    assert world.problems()
    assert world.workload_at(IP("10.1.0.1")) is None
    world = world.replace(removals=[(mesh.Workload, "b/y")], revision="2")
    assert world.problems() == []
    assert world.workload_at(IP("10.1.0.1")) == WEB


def test_pods_without_a_node_or_address_are_no_problem() -> None:
    assert a_world(a_pod("a/x", node=""), a_pod("a/y", node="")).problems() == []


# --- changes


STEPS = {
    "a pod turns unready": ([replace(WEB, ready=False)], [], {"wl:shop/web", "svc:shop/web"}),
    "a pod gets another address": (
        [replace(WEB, addresses=(IP("10.1.0.1"), IP("10.1.0.7")))],
        [],
        {"wl:shop/web", "svc:shop/web", "ip:10.1.0.7", "ip:fd00::1"},
    ),
    "a pod is enrolled": ([replace(WEB, enrolled=False)], [], {"wl:shop/web", "svc:shop/web"}),
    "a pod leaves a service": ([replace(WEB, labels={})], [], {"wl:shop/web", "svc:shop/web"}),
    "a pod goes": (
        [],
        [(mesh.Workload, "shop/web")],
        {"wl:shop/web", "svc:shop/web", "ip:10.1.0.1", "ip:fd00::1"},
    ),
    "a service goes": ([], [(mesh.Service, "shop/web")], {"svc:shop/web", "svcs:shop", "ip:10.96.0.1"}),
    "a service of nobody comes": ([a_service("x/y", "10.96.0.9")], [], {"svc:x/y", "svcs:x", "ip:10.96.0.9"}),
    "a namespace changes": ([mesh.Namespace(name="shop", require_mtls=True)], [], {"ns:shop"}),
    "a policy comes": ([a_policy("shop/p")], [], {"policy:shop"}),
    "a peer authentication comes": ([a_peer_authentication("shop/p", "STRICT")], [], {"policy:shop"}),
    "a node gets an address": ([a_node("n1", "10.0.0.1", "10.0.0.9")], [], {"ip:10.0.0.9"}),
    "a node gets room for pods": ([a_node("n1", "10.0.0.1", pods=("10.1.0.0/24",))], [], {"networks"}),
    "nothing changes": ([WEB, SERVICE, NODE], [], set()),
    "what is not there is removed": ([], [(mesh.Workload, "no/body")], set()),
}


@pytest.mark.parametrize(("upserts", "removals", "tokens"), STEPS.values(), ids=STEPS.keys())
def test_a_change_touches_what_it_concerns(upserts: list[Any], removals: list[Any], tokens: set[str]) -> None:
    world = a_world(WEB, SERVICE, NODE)
    after = world.replace(upserts, removals, revision="2")
    assert diff(world, after).touched() == tokens
    assert bool(diff(world, after)) is bool(tokens)
    assert after.revision == "2"


@pytest.mark.parametrize(
    ("service", "port", "found"),
    [
        (a_service("shop/web", target=8080), 8080, True),
        (a_service("shop/web", port=8080, target=80), 8080, False),
        (a_service("shop/web", target="http"), 9090, True),
        (a_service("shop/web", target="nobody"), 9090, False),
        (a_service("shop/other"), 8080, False),
        (a_service("else/web"), 8080, False),
    ],
    ids=["its target", "not its own port", "a named target", "a name the pod has not", "others' pods", "elsewhere"],
)
def test_a_port_of_a_pod_is_behind_the_services_that_lead_to_it(service: Any, port: int, found: bool) -> None:
    pod = replace(WEB, labels={"app": "web"}, ports={"http": 9090})
    assert a_world(pod, service).services_at(pod, port) == ((service,) if found else ())


def test_another_mesh_config_touches_everything() -> None:
    other = mesh.MeshConfig(outbound=mesh.OutboundMode.REGISTRY_ONLY)
    assert diff(a_world(), a_world(config=other)).touched() == {"mesh"}


def test_the_mesh_config_can_change_with_the_rest() -> None:
    world = a_world(WEB)
    other = mesh.MeshConfig(trust_domain="example.org")
    after = world.replace([NODE], revision="2", mesh=other)
    assert after == a_world(WEB, NODE, config=other).replace(revision="2")
    assert diff(world, after).touched() == {"mesh", "ip:10.0.0.1"}
    assert not diff(world, world.replace(revision="2", mesh=mesh.MeshConfig())).mesh


def test_worlds_share_what_did_not_change() -> None:
    world = a_world(WEB, SERVICE, NODE)
    after = world.replace([a_policy("shop/p")], revision="2")
    assert after.workloads is world.workloads
    assert after.endpoints is world.endpoints


# A small universe in which everything collides with everything.
NAMES = st.sampled_from(["a", "b"])
LABELS = st.sampled_from([{}, {"app": "x"}, {"app": "y"}, {"app": "x", "v": "1"}])
ADDRESSES = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), max_size=2, unique=True)
BLOCKS = st.sampled_from([(), ("10.0.0.0/24",), ("10.0.0.2/31", "fd00::/64"), ("fd00::/64",)])
KEYS = st.builds("{}/{}".format, NAMES, st.sampled_from(["p", "q"]))
NOUNS = st.one_of(
    st.builds(lambda name, ips, pods: a_node(name, *ips, pods=pods), NAMES, ADDRESSES, BLOCKS),
    st.builds(lambda name, on: mesh.Namespace(name=name, require_mtls=on), NAMES, st.booleans()),
    st.builds(
        lambda key, ips, **more: a_pod(key, *ips, **more),
        KEYS,
        ADDRESSES,
        labels=LABELS,
        node=NAMES,
        ready=st.booleans(),
        host_network=st.booleans(),
        ports=st.sampled_from([{}, {"http": 1}]),
    ),
    st.builds(
        lambda key, ips, **more: a_service(key, *ips, **more),
        KEYS,
        ADDRESSES,
        selector=LABELS,
        target=st.sampled_from([7, "http"]),
    ),
    st.builds(lambda key, labels: a_policy(key, selector=labels), KEYS, LABELS),
    st.builds(lambda key, labels: a_peer_authentication(key, "STRICT", selector=labels), KEYS, LABELS),
)
REMOVALS = st.one_of(
    st.tuples(st.sampled_from([mesh.Node, mesh.Namespace]), NAMES),
    st.tuples(st.sampled_from([mesh.Workload, mesh.Service, mesh.AuthorizationPolicy, mesh.PeerAuthentication]), KEYS),
)
CHANGES = st.lists(st.tuples(st.lists(NOUNS, max_size=4), st.lists(REMOVALS, max_size=3)), min_size=1, max_size=5)


def by_hand(world: World) -> dict[str, Any]:
    """What the look-ups must say, found by walking over everything."""
    pods, services = world.workloads.values(), world.services.values()
    owners: dict[mesh.IPAddress, list[str]] = {}
    for kind, nouns in (("node:", world.nodes), ("svc:", world.services), ("wl:", world.workloads)):
        for key, noun in nouns.items():
            ips = getattr(noun, "vips", None) if kind == "svc:" else noun.addresses
            for ip in () if getattr(noun, "host_network", False) else ips:
                owners.setdefault(ip, []).append(kind + key)
    endpoints = {}
    for service in services:
        behind = sorted((p for p in pods if selects(service, p)), key=lambda p: p.key)
        endpoints[service.key] = [
            (p.key, str(ip), p.ready) for p in behind for ip in sorted(p.addresses, key=mesh.packed16)
        ]
    blocks = {block for node in world.nodes.values() for block in node.pod_networks}
    return {
        "room": {ip: any(ip in block for block in blocks) for ip in SOME_IPS},
        "owners": {ip: tuple(sorted(claims)) for ip, claims in owners.items()},
        "endpoints": endpoints,
        "on": {n: sorted(p.key for p in pods if p.node == n) for n in "ab"},
        "in": {n: sorted(p.key for p in pods if p.namespace == n) for n in "ab"},
        "policies": {n: sorted(p.key for p in world.policies.values() if p.namespace == n) for n in "ab"},
        "modes": {n: sorted(p.key for p in world.peer_authentications.values() if p.namespace == n) for n in "ab"},
        "services": {p.key: sorted(s.key for s in services if selects(s, p)) for p in pods},
    }


def selects(service: mesh.Service, pod: mesh.Workload) -> bool:
    wanted = service.selector.items()
    return bool(wanted) and service.namespace == pod.namespace and all(pod.labels.get(k) == v for k, v in wanted)


SOME_IPS = [IP(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1")]


def by_index(world: World) -> dict[str, Any]:
    return {
        "room": {ip: world.pod_network(ip) is not None for ip in SOME_IPS},
        "owners": {ip: world.claims(ip) for ip in SOME_IPS if world.claims(ip)},
        "endpoints": {key: [(e.workload, str(e.address), e.ready) for e in es] for key, es in world.endpoints.items()},
        "on": {n: [p.key for p in world.workloads_on(n)] for n in "ab"},
        "in": {n: [p.key for p in world.workloads_in(n)] for n in "ab"},
        "policies": {n: [p.key for p in world.policies_in(n)] for n in "ab"},
        "modes": {n: [p.key for p in world.peer_authentications_in(n)] for n in "ab"},
        "services": {p.key: [s.key for s in world.services_of(p)] for p in world.workloads.values()},
    }


@settings(max_examples=100, deadline=None)
@given(CHANGES)
def test_changing_a_world_gives_what_building_it_gives(steps: list[tuple[list[Any], list[Any]]]) -> None:
    world = World()
    for upserts, removals in steps:
        before, world = world, world.replace(upserts, removals, revision="r")
        built = World.build(
            nodes=world.nodes.values(),
            namespaces=world.namespaces.values(),
            workloads=world.workloads.values(),
            services=world.services.values(),
            policies=world.policies.values(),
            peer_authentications=world.peer_authentications.values(),
            revision="r",
        )
        assert world == built
        assert by_index(world) == by_hand(world)
        # known from how it was made, and found by comparison: the same
        assert diff(before, world) == diff(before, built)
        assert world.problems() == built.problems()
