"""May two pods of one node talk plainly? A table of what stands in the way, and that it never goes past a denial."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model import mesh, policy, samenode
from ambient.model.mesh import Action, Match, SameNode
from ambient.model.world import World, diff

from .builders import IP, ROOT, a_peer_authentication, a_pod, a_policy, a_rule, a_traffic_policy, a_world

CLIENT = a_pod("front/cart", "10.1.0.2", "fd00::2", service_account="cart")
SERVER = a_pod("shop/web", "10.1.0.3", "fd00::3", labels={"app": "web"})
FRONT, SHOP = mesh.Namespace(name="front"), mesh.Namespace(name="shop")
NOT_CART = a_rule(Match(principals=("cluster.local/ns/front/sa/cart",)))
MTLS, DIRECT = SameNode.MTLS, SameNode.DIRECT


def world_of(*more: Any, client: mesh.Workload = CLIENT, server: mesh.Workload = SERVER, **config: Any) -> World:
    return a_world(FRONT, SHOP, client, server, *more, config=mesh.MeshConfig(**config))


def judge(
    *more: Any,
    client: mesh.Workload = CLIENT,
    server: mesh.Workload = SERVER,
    to: str = "10.1.0.3",
    port: int = 8080,
    source: str = "",
    **config: Any,
) -> samenode.Direct | samenode.Indirect:
    world = world_of(*more, client=client, server=server, **config)
    came = IP(source) if source else None
    return samenode.between(world, client, server, IP(to), port, source=came)


def reason(*more: Any, **facts: Any) -> str:
    """Empty: direct."""
    found = judge(*more, **facts)
    return found.reason if isinstance(found, samenode.Indirect) else ""


TABLE: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "two captured pods of one node": ([], {}, ""),
    "over IPv6": ([], {"to": "fd00::3"}, ""),
    "another node": ([], {"server": replace(SERVER, node="n2")}, "another_node"),
    "no node known": ([], {"server": replace(SERVER, node=""), "client": replace(CLIENT, node="")}, "another_node"),
    "the pod itself": ([], {"client": SERVER}, "another_node"),
    "a server outside the mesh": ([], {"server": replace(SERVER, enrolled=False)}, "not_captured"),
    "a server not captured yet": ([], {"server": replace(SERVER, captured=False)}, "not_captured"),
    "a client outside the mesh": ([], {"client": replace(CLIENT, enrolled=False)}, "not_captured"),
    "a server on the host's network": ([], {"server": replace(SERVER, host_network=True)}, "not_captured"),
    "an address that is not the server's": ([], {"to": "10.1.0.9"}, "no_address"),
    "an address that another has, too": ([a_pod("back/thief", "10.1.0.3")], {}, "no_address"),
    "no address of that family": ([], {"client": replace(CLIENT, addresses=(IP("10.1.0.2"),)), "to": "fd00::3"},
                                  "no_address"),
    "the tunnels' port": ([], {"port": mesh.TUNNEL_PORT}, "tunnel_port"),
    "a port kept out of the mesh": (
        [],
        {"server": replace(SERVER, capture=mesh.CaptureSettings(exclude_inbound_ports=frozenset({8080})))},
        "excluded_port",
    ),
    "a probe's port is a port": ([], {"server": replace(SERVER, probe_ports=frozenset({8080}))}, ""),
    "a DENY that matches": ([a_policy("shop/no", NOT_CART, action=Action.DENY)], {}, "denied_by_policy"),
    "a DENY of the mesh": ([a_policy(f"{ROOT}/no", NOT_CART, action=Action.DENY)], {}, "denied_by_policy"),
    "an ALLOW for others": ([a_policy("shop/only", a_rule(Match(namespaces=("back",))))], {}, "no_allow_matched"),
    "an ALLOW for it": ([a_policy("shop/only", NOT_CART)], {}, ""),
    "a source that a policy names": (
        [a_policy("shop/no", a_rule(Match(source_ips=(ipaddress.ip_network("10.1.0.2/32"),))), action=Action.DENY)],
        {},
        "denied_by_policy",
    ),
    "a source that the policy does not name": (
        [a_policy("shop/no", a_rule(Match(source_ips=(ipaddress.ip_network("10.1.0.2/32"),))), action=Action.DENY)],
        {"to": "fd00::3"},
        "",
    ),
    "a second address that the policy names": (
        [a_policy("shop/no", a_rule(Match(source_ips=(ipaddress.ip_network("10.1.0.8/32"),))), action=Action.DENY)],
        {"client": replace(CLIENT, addresses=(IP("10.1.0.2"), IP("10.1.0.8")))},
        "denied_by_policy",
    ),
    "a second address that the policy names, and that it does not come from": (
        [a_policy("shop/no", a_rule(Match(source_ips=(ipaddress.ip_network("10.1.0.8/32"),))), action=Action.DENY)],
        {"client": replace(CLIENT, addresses=(IP("10.1.0.2"), IP("10.1.0.8"))), "source": "10.1.0.2"},
        "",
    ),
    "a source that is nobody's": ([], {"source": "10.1.0.77"}, "unknown_source"),
    "STRICT is met: the kernel says who it is": ([a_peer_authentication("shop/strict", "STRICT")], {}, ""),
    "so is mtls Required": ([a_traffic_policy("front/out", require_mtls=True)], {}, ""),
    "the server wants mTLS": ([], {"server": replace(SERVER, same_node=MTLS)}, "same_node_mtls"),
    "the client wants mTLS": ([], {"client": replace(CLIENT, same_node=MTLS)}, "same_node_mtls"),
    "the server's namespace does": ([replace(SHOP, same_node=MTLS)], {}, "same_node_mtls"),
    "the client's namespace does": ([replace(FRONT, same_node=MTLS)], {}, "same_node_mtls"),
    "the mesh does": ([], {"same_node": MTLS}, "same_node_mtls"),
    "the mesh does, and one side does not": ([replace(SHOP, same_node=DIRECT)], {"same_node": MTLS}, "same_node_mtls"),
    "the mesh does, and neither side": (
        [replace(SHOP, same_node=DIRECT), replace(FRONT, same_node=DIRECT)],
        {"same_node": MTLS},
        "",
    ),
    "the pod's word goes before its namespace's": (
        [replace(SHOP, same_node=MTLS)],
        {"server": replace(SERVER, same_node=DIRECT)},
        "",
    ),
    "a waypoint before the pod": (
        [],
        {"server": replace(SERVER, labels={"ambient.dev/waypoint": "w"})},
        "waypoint",
    ),
    "a waypoint before its namespace": ([replace(SHOP, labels={"istio.io/use-waypoint": "w"})], {}, "waypoint"),
    "the pod is taken out of it": (
        [replace(SHOP, labels={"istio.io/use-waypoint": "w"})],
        {"server": replace(SERVER, labels={"istio.io/use-waypoint": "none"})},
        "",
    ),
    "mTLS is wanted, and the client has left the mesh": (
        [],
        {"client": replace(CLIENT, enrolled=False), "server": replace(SERVER, same_node=MTLS)},
        "same_node_mtls",
    ),
    "a waypoint before a pod whose address another claims": (
        [a_pod("back/thief", "10.1.0.3"), replace(SHOP, labels={"istio.io/use-waypoint": "w"})],
        {},
        "waypoint",
    ),
    "the client's waypoint is none of ours": ([replace(FRONT, labels={"istio.io/use-waypoint": "w"})], {}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("more", "facts", "expected"), TABLE.values(), ids=TABLE)
def test_what_stands_in_the_way(more: list[Any], facts: dict[str, Any], expected: str) -> None:
    assert reason(*more, **facts) == expected


def test_who_wants_mutual_tls_is_named() -> None:
    found = judge(replace(SHOP, same_node=MTLS))
    assert isinstance(found, samenode.Indirect)
    assert found.why == "namespace shop wants mutual TLS on the node, too"


CHANGES: dict[str, Any] = {
    "a policy of the server's namespace": a_policy("shop/no", NOT_CART, action=Action.DENY),
    "a policy of the root namespace": a_policy(f"{ROOT}/no", NOT_CART, action=Action.DENY),
    "the client's namespace": replace(FRONT, same_node=MTLS),
    "the server's namespace": replace(SHOP, labels={"istio.io/use-waypoint": "w"}),
    "the client": replace(CLIENT, same_node=MTLS),
    "the server": replace(SERVER, enrolled=False),
    "another owner of the server's address": a_pod("back/thief", "10.1.0.3"),
    "another owner of the client's address": a_pod("back/thief", "10.1.0.2"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_takes_it_away_is_among_what_it_depends_on_and_what_gives_it_back_too(change: Any) -> None:
    before = world_of()
    after = before.replace([change], revision="2")
    found = samenode.between(before, CLIENT, SERVER, IP("10.1.0.3"), 8080)
    client, server = after.workloads[CLIENT.key], after.workloads[SERVER.key]
    then = samenode.between(after, client, server, IP("10.1.0.3"), 8080)
    assert isinstance(found, samenode.Direct)
    assert isinstance(then, samenode.Indirect)
    for judged in (found, then):
        assert judged.deps & diff(before, after).touched()


VALUES = {
    "principals": ["*", "cluster.local/ns/front/sa/cart", "cluster.local/ns/shop/*"],
    "namespaces": ["front", "shop", "*"],
    "source_ips": [ipaddress.ip_network(text) for text in ("10.1.0.0/30", "10.1.0.8/32", "fd00::/64")],
    "destination_ips": [ipaddress.ip_network(text) for text in ("10.1.0.3/32", "fd00::3/128")],
    "destination_ports": [8080, 9090],
}
MATCHES = st.builds(
    Match,
    **{
        sign + name: st.lists(st.sampled_from(values), max_size=1).map(tuple)
        for name, values in VALUES.items()
        for sign in ("", "not_")
    },
)
POLICIES = st.lists(
    st.builds(
        lambda where, rules, action: a_policy(f"{where}/p", *rules, action=action),
        st.sampled_from(["shop", "front", ROOT]),
        st.lists(st.builds(a_rule, MATCHES), max_size=2),
        st.sampled_from(Action),
    ),
    max_size=3,
)
CLIENTS = st.sampled_from(
    [CLIENT, replace(CLIENT, addresses=(IP("10.1.0.2"), IP("10.1.0.8"))), replace(CLIENT, service_account="other")]
)
MODES = st.sampled_from([None, "STRICT", "PERMISSIVE"])


@settings(max_examples=400, deadline=None)
@given(POLICIES, CLIENTS, MODES, st.sampled_from([8080, 9090]), st.sampled_from(["10.1.0.3", "fd00::3"]))
def test_nothing_is_direct_that_the_destination_denies(
    policies: list[Any], client: mesh.Workload, mode: str | None, port: int, to: str
) -> None:
    """Whichever of its addresses the client comes from."""
    world = world_of(*policies, a_peer_authentication("shop/mode", mode), client=client)
    found = samenode.between(world, client, SERVER, IP(to), port)
    peer = client.identity("cluster.local")
    verdicts = [
        policy.decide(world, SERVER, peer=peer, source=source, to=IP(to), port=port)
        for source in client.addresses
        if source.version == IP(to).version
    ]
    allowed = bool(verdicts) and all(isinstance(each, policy.Allow) for each in verdicts)
    assert isinstance(found, samenode.Direct) == allowed
