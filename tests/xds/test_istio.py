"""What Istio's readers make of our bytes: by field numbers, with none of our messages."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model import mesh, policy
from ambient.model.mesh import TrafficDistribution
from ambient.model.world import World
from ambient.xds import names
from ambient.xds.snapshot import Snapshot
from tests.model.builders import IP, ROOT, a_peer_authentication, a_pod, a_policy, a_rule, a_service, a_world

from . import wire
from .worlds import MODES, named, several
from .ztunnel import Connection, Ztunnel


def read(world: World) -> Ztunnel:
    found = Ztunnel()
    snapshot = Snapshot.of(world)
    for type_url in names.TYPES:
        found.receive(b"".join(resource.element for resource in snapshot.table(type_url).values()))
    return found


def workload(pod: mesh.Workload, *others: Any, **more: Any) -> wire.Raw:
    return read(a_world(pod, *others, **more)).workloads["Kubernetes//Pod/" + pod.key]


WEB = a_pod("shop/web-1", "10.1.0.1", "fd00::1", labels={"app": "web"}, ports={"http": 8080}, owner="web")


def test_a_workload_says_who_and_where_it_is() -> None:
    pod = replace(WEB, service_account="sa", node="n7", locality=mesh.Locality("home", "a"))
    raw = workload(pod, config=mesh.MeshConfig(trust_domain="example.org"))
    assert wire.text(raw, 20) == "Kubernetes//Pod/shop/web-1"
    assert (wire.text(raw, 1), wire.text(raw, 2)) == ("web-1", "shop")
    assert raw[3] == [bytes([10, 1, 0, 1]), bytes([0xFD, *[0] * 14, 1])]
    assert wire.text(raw, 4) == ""
    assert (wire.text(raw, 6), wire.text(raw, 7), wire.text(raw, 9)) == ("example.org", "sa", "n7")
    (locality,) = wire.messages(raw, 24)
    assert (wire.text(locality, 1), wire.text(locality, 2)) == ("home", "a")


@pytest.mark.parametrize(
    ("change", "number", "value"),
    [
        ({"enrolled": True}, 5, 1),
        ({"enrolled": False}, 5, 0),
        ({"enrolled": True, "host_network": True}, 5, 0),
        ({"owner": "web"}, 12, 0),
        ({"owner": "web-1"}, 12, 2),
        ({"owner": ""}, 12, 2),
        ({"ready": True}, 17, 0),
        ({"ready": False}, 17, 1),
        ({"host_network": False}, 25, 0),
        ({"host_network": True}, 25, 1),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_workloads_state_is_in_istios_enums(change: dict[str, Any], number: int, value: int) -> None:
    assert wire.number(workload(replace(WEB, **change)), number) == value


@pytest.mark.parametrize(
    ("labels", "canonical"),
    [
        ({}, ("web", "latest")),
        ({"app": "shop", "version": "v1"}, ("shop", "v1")),
        ({"app": "shop", "app.kubernetes.io/name": "site", "app.kubernetes.io/version": "2"}, ("site", "2")),
        (
            {
                "app.kubernetes.io/name": "site",
                "service.istio.io/canonical-name": "canon",
                "service.istio.io/canonical-revision": "r3",
            },
            ("canon", "r3"),
        ),
    ],
    ids=["owner", "app and version", "recommended labels", "Istio's own"],
)
def test_the_canonical_names_are_istios(labels: dict[str, str], canonical: tuple[str, str]) -> None:
    raw = workload(replace(WEB, labels=labels))
    assert (wire.text(raw, 10), wire.text(raw, 11)) == canonical
    assert wire.text(raw, 13) == "web"


def test_a_workload_lists_the_services_it_is_behind_with_its_own_ports() -> None:
    ports = (
        mesh.ServicePort(name="a", port=80, target="http"),
        mesh.ServicePort(name="b", port=81, target=9000),
        mesh.ServicePort(name="c", port=82, target="none here"),
    )
    service = replace(a_service("shop/web"), ports=ports)
    raw = workload(WEB, service, a_service("shop/other"), a_service("back/web"))
    found = wire.mapping(raw, 22)
    assert list(found) == ["shop/web.shop.svc.cluster.local"]
    listed = wire.messages(wire.decode(found["shop/web.shop.svc.cluster.local"]), 1)
    assert [(wire.number(port, 1), wire.number(port, 2)) for port in listed] == [(80, 8080), (81, 9000)]


def service(**more: Any) -> wire.Raw:
    return wire.only(read(a_world(replace(a_service("shop/web"), **more))).services.values())


def test_a_service_says_how_it_is_called_and_reached() -> None:
    ports = (mesh.ServicePort(name="a", port=80, target="http"), mesh.ServicePort(name="b", port=81, target=9000))
    raw = service(vips=(IP("10.96.0.1"), IP("fd00:96::1")), ports=ports)
    assert [wire.text(raw, number) for number in (1, 2, 3)] == ["web", "shop", "web.shop.svc.cluster.local"]
    assert [(wire.text(each, 1), each[2]) for each in wire.messages(raw, 4)] == [
        ("", [IP("10.96.0.1").packed]),
        ("", [IP("fd00:96::1").packed]),
    ]
    listed = [(wire.number(port, 1), wire.number(port, 2)) for port in wire.messages(raw, 5)]
    assert listed == [(80, 0), (81, 9000)]  # a named one is each workload's own
    assert wire.number(raw, 11) == 1


@pytest.mark.parametrize(
    ("vips", "families"), [((), 0), (("10.0.0.1",), 1), (("::1",), 2), (("10.0.0.1", "::1"), 3)], ids=str
)
def test_a_services_families_are_its_addresses(vips: tuple[str, ...], families: int) -> None:
    assert wire.number(service(vips=tuple(map(IP, vips))), 9) == families


REGION, ZONE, SUBZONE, NODE, NETWORK = 1, 2, 3, 4, 6
STRICT, FAILOVER, PASSTHROUGH = 1, 2, 3
ZONES, NODES = TrafficDistribution.SAME_ZONE, TrafficDistribution.SAME_NODE


@pytest.mark.parametrize(
    ("fields", "preference", "mode", "health"),
    [
        ({"distribution": ZONES}, [NETWORK, REGION, ZONE], FAILOVER, 0),
        ({"distribution": NODES}, [NETWORK, REGION, ZONE, SUBZONE, NODE], FAILOVER, 0),
        ({"local_only": True}, [NODE], STRICT, 0),
        ({"local_only": True, "distribution": ZONES, "publish_not_ready": True}, [NODE], STRICT, 1),
        ({"publish_not_ready": True}, [], 0, 1),
        ({"selector": {}, "local_only": True}, [], PASSTHROUGH, 0),
    ],
    ids=["same zone", "same node", "local only", "local before near", "not ready ones too", "no selector"],
)
def test_load_balancing_is_istios(fields: dict[str, Any], preference: list[int], mode: int, health: int) -> None:
    (balancing,) = wire.messages(service(**fields), 8)
    (packed,) = balancing.get(1, [b""])
    assert ([*packed], wire.number(balancing, 2), wire.number(balancing, 3)) == (preference, mode, health)


def test_a_plain_service_says_nothing_of_load_balancing() -> None:
    assert 8 not in service()


def test_a_policys_scope_is_where_it_looks() -> None:
    world = a_world(a_policy(f"{ROOT}/mesh"), a_policy("shop/all"), a_policy("shop/web", selector={"app": "web"}), WEB)
    found = read(world)
    scopes = {name: wire.number(raw, 3) for name, raw in found.policies.items() if "istio" not in name}
    assert scopes == {f"{ROOT}/mesh": 0, "shop/all": 1, "shop/web": 2}
    assert wire.texts(found.workloads["Kubernetes//Pod/shop/web-1"], 16) == ["shop/web"]


def test_a_policys_rules_are_in_istios_fields() -> None:
    match = mesh.Match(
        namespaces=("a*",),
        not_namespaces=("*a",),
        principals=("*",),
        not_principals=("td/ns/a/sa/b",),
        source_ips=(ipaddress.ip_network("10.0.0.0/8"),),
        not_source_ips=(ipaddress.ip_network("fd00::/16"),),
        destination_ips=(ipaddress.ip_network("10.1.0.0/16"),),
        not_destination_ips=(ipaddress.ip_network("10.2.0.0/16"),),
        destination_ports=(80, 300),
        not_destination_ports=(81,),
        service_accounts=("ns/one",),
        not_service_accounts=("ns/two",),
    )
    raw = read(a_world(a_policy("shop/p", a_rule(match), action=mesh.Action.DENY, dry_run=True))).policies["shop/p"]
    assert (wire.text(raw, 1), wire.text(raw, 2), wire.number(raw, 4), wire.number(raw, 6)) == ("p", "shop", 1, 1)
    (rule,) = wire.messages(raw, 5)
    (clause,) = wire.messages(rule, 1)
    (found,) = wire.messages(clause, 2)
    assert found == {
        1: [wire.encode({2: "a"})],
        2: [wire.encode({3: "a"})],
        3: [wire.encode({4: b""})],
        4: [wire.encode({1: "td/ns/a/sa/b"})],
        5: [wire.encode({1: bytes([10, 0, 0, 0]), 2: 8})],
        6: [wire.encode({1: bytes([0xFD, *[0] * 15]), 2: 16})],
        7: [wire.encode({1: bytes([10, 1, 0, 0]), 2: 16})],
        8: [wire.encode({1: bytes([10, 2, 0, 0]), 2: 16})],
        9: [wire.varint(80) + wire.varint(300)],
        10: [wire.varint(81)],
        11: [wire.encode({1: "ns", 2: "one"})],
        12: [wire.encode({1: "ns", 2: "two"})],
    }


def test_a_waypoints_policy_is_not_told_to_l4() -> None:
    assert list(read(a_world(a_policy("shop/p", targets=("Gateway/w",)))).policies) == [
        f"{ROOT}/istio_converted_static_strict"
    ]


def test_an_allow_rule_that_needs_l7_is_withheld_and_a_deny_rule_is_not() -> None:
    rule = a_rule(mesh.Match(namespaces=("a",)), needs_l7=True)
    found = read(a_world(a_policy("a/allow", rule), a_policy("a/deny", rule, action=mesh.Action.DENY))).policies
    assert 5 not in found["a/allow"]
    assert len(found["a/deny"][5]) == 1


STATIC = f"{ROOT}/istio_converted_static_strict"
PORTS = "shop/converted_peer_authentication_web"
TO_WEB = {"selector": {"app": "web"}}


@pytest.mark.parametrize(
    ("authentications", "listed"),
    [
        ([], []),
        ([a_peer_authentication(f"{ROOT}/m", "STRICT")], [STATIC]),
        ([a_peer_authentication("shop/n", "STRICT")], [STATIC]),
        ([a_peer_authentication("other/n", "STRICT")], []),
        ([a_peer_authentication("shop/n", "STRICT"), a_peer_authentication("shop/web", "PERMISSIVE", **TO_WEB)], []),
        ([a_peer_authentication("shop/web", "STRICT", **TO_WEB)], [STATIC]),
        ([a_peer_authentication("shop/web", "STRICT", port_modes={80: mesh.MtlsMode.STRICT}, **TO_WEB)], [STATIC]),
        ([a_peer_authentication("shop/web", "STRICT", port_modes={80: mesh.MtlsMode.DISABLE}, **TO_WEB)], [PORTS]),
        ([a_peer_authentication("shop/web", port_modes={80: mesh.MtlsMode.STRICT}, **TO_WEB)], [PORTS]),
        ([a_peer_authentication(f"{ROOT}/web", "STRICT", **TO_WEB)], []),
    ],
    ids=[
        "none",
        "mesh",
        "namespace",
        "another namespace",
        "an exception",
        "workload",
        "a port that is no exception",
        "a port that is",
        "only a port",
        "a selector in the root namespace",
    ],
)
def test_strict_is_a_policy_that_the_workload_lists(authentications: list[Any], listed: list[str]) -> None:
    found = read(a_world(WEB, *authentications))
    assert wire.texts(found.workloads["Kubernetes//Pod/shop/web-1"], 16) == listed
    assert set(listed) <= found.policies.keys()


# Few values, so that most policies have a say: the server is a/x with app=x, its client b/p.
SERVER = a_pod("a/x", "10.0.0.7", labels={"app": "x"}, service_account="p")
CLIENT = a_pod("b/p", "10.0.0.8", service_account="p")
PLACES = st.sampled_from([("a", "p"), ("a", "q"), ("root", "p"), ("b", "p")])
SELECTORS = st.sampled_from([{}, {"app": "x"}, {"app": "y"}])
TELLING = st.sampled_from(
    [
        mesh.Match(),
        mesh.Match(principals=("*",)),
        mesh.Match(not_principals=("*",)),
        mesh.Match(principals=("cluster.local/ns/b/*",), destination_ports=(80,)),
        mesh.Match(namespaces=("*b",)),
        mesh.Match(not_namespaces=("b",)),
        mesh.Match(service_accounts=("b/p",)),
        mesh.Match(not_service_accounts=("b/p",)),
        mesh.Match(source_ips=(ipaddress.ip_network("10.0.0.8/32"),)),
        mesh.Match(not_source_ips=(ipaddress.ip_network("10.0.0.0/8"),)),
        mesh.Match(destination_ips=(ipaddress.ip_network("fd00::/16"),)),
        mesh.Match(destination_ports=(443,)),
        mesh.Match(not_destination_ports=(443,)),
    ]
)
RULE = st.builds(
    mesh.Rule,
    clauses=st.lists(st.lists(TELLING, max_size=2).map(tuple), max_size=2).map(tuple),
    needs_l7=st.booleans(),
)
POLICY = named(
    mesh.AuthorizationPolicy,
    PLACES,
    action=st.sampled_from(mesh.Action),
    selector=SELECTORS,
    rules=several(RULE),
    dry_run=st.sampled_from([False, False, True]),
    targets=st.sampled_from([(), (), ("Gateway/w",)]),
)
MODE = named(
    mesh.PeerAuthentication,
    PLACES,
    selector=SELECTORS,
    mode=st.one_of(st.none(), MODES),
    port_modes=st.dictionaries(st.sampled_from([80, 443]), MODES, max_size=1),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(POLICY, MODE), min_size=1, max_size=3), st.booleans(), st.sampled_from([80, 443]))
def test_ztunnel_judges_as_our_agent_does(written: list[Any], tls: bool, port: int) -> None:
    config = mesh.MeshConfig(root_namespace="root")
    world = a_world(SERVER, CLIENT, *written, config=config)
    (source,), (to,) = CLIENT.addresses, SERVER.addresses
    peer = CLIENT.identity(config.trust_domain) if tls else None
    ours = policy.decide(world, SERVER, peer=peer, source=source, to=to, port=port)
    connection = Connection(peer.principal if peer else "", source, to, port)
    theirs = read(world).allows("Kubernetes//Pod/a/x", connection)
    assert theirs == isinstance(ours, policy.Allow), ours
