"""Whose word holds for what a pod may send, and that decisions hear when it changes."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ambient.model import egress, mesh, route
from ambient.model.mesh import OutboundMode
from ambient.model.world import World, diff

from .builders import IP, ROOT, a_pod, a_service, a_traffic_policy, a_world

ALLOW, REFUSE = OutboundMode.ALLOW_ANY, OutboundMode.REGISTRY_ONLY
CLIENT = a_pod("shop/client", "10.0.0.1", labels={"app": "client"})
OUTSIDE = IP("198.51.100.7")
MESH = mesh.MeshConfig(outbound=REFUSE)


def a_namespace(**more: Any) -> mesh.Namespace:
    return mesh.Namespace(name="shop", **more)


def says(mode: OutboundMode | None = None, *, to: str = "shop/p", **more: Any) -> mesh.TrafficPolicy:
    return a_traffic_policy(to, outbound=mode, **more)


SELECTING = {"selector": {"app": "client"}}
P, Q, Z = (f"TrafficPolicy shop/{name}" for name in "pqz")
OUTBOUND: dict[str, tuple[list[Any], OutboundMode, str]] = {
    "nobody but the mesh": ([], REFUSE, "the mesh"),
    "the root namespace's policy": ([says(ALLOW, to=f"{ROOT}/all")], ALLOW, f"TrafficPolicy {ROOT}/all"),
    "the namespace's label": ([says(REFUSE, to=f"{ROOT}/all"), a_namespace(outbound=ALLOW)], ALLOW, "namespace shop"),
    "the namespace's policy": ([a_namespace(outbound=REFUSE), says(ALLOW)], ALLOW, P),
    "the policy that selects": ([says(REFUSE), says(ALLOW, to="shop/q", **SELECTING)], ALLOW, Q),
    "not one that selects others": ([says(REFUSE), says(ALLOW, to="shop/q", selector={"app": "x"})], REFUSE, P),
    "not one that says nothing of it": ([says(require_mtls=True, **SELECTING), says(ALLOW, to="shop/q")], ALLOW, Q),
    "not another namespace's": ([says(ALLOW, to="other/p")], REFUSE, "the mesh"),
    "not the root namespace's with a selector": ([says(ALLOW, to=f"{ROOT}/all", **SELECTING)], REFUSE, "the mesh"),
    "the older of two": ([says(ALLOW, to="shop/z", created="2025"), says(REFUSE, created="2026")], ALLOW, Z),
    "of two as old the first by name": ([says(REFUSE, to="shop/z"), says(ALLOW)], ALLOW, P),
}  # fmt: skip


@pytest.mark.parametrize(("nouns", "mode", "said_by"), OUTBOUND.values(), ids=OUTBOUND.keys())
def test_the_nearest_word_on_the_unknown_holds(nouns: list[Any], mode: OutboundMode, said_by: str) -> None:
    found = egress.outbound(a_world(CLIENT, *nouns, config=MESH), CLIENT)
    assert (found.mode, found.said_by) == (mode, said_by)


REQUIRED: dict[str, tuple[list[Any], str]] = {
    "nobody": ([], ""),
    "the namespace's label": ([a_namespace(require_mtls=True)], "namespace shop"),
    "the namespace's policy": ([says(require_mtls=True)], P),
    "a policy that takes it back": ([a_namespace(require_mtls=True), says(require_mtls=False, **SELECTING)], ""),
    "the mesh's": ([says(to=f"{ROOT}/all", require_mtls=True)], f"TrafficPolicy {ROOT}/all"),
    "the namespace's against the mesh's": ([says(to=f"{ROOT}/all", require_mtls=True), says(require_mtls=False)], ""),
    "not one that says nothing of it": ([says(ALLOW, **SELECTING), says(to="shop/q", require_mtls=True)], Q),
}  # fmt: skip


@pytest.mark.parametrize(("nouns", "said_by"), REQUIRED.values(), ids=REQUIRED.keys())
def test_the_nearest_word_on_mutual_tls_holds(nouns: list[Any], said_by: str) -> None:
    assert egress.requires_mtls(a_world(CLIENT, *nouns), CLIENT) == said_by


def test_a_pod_of_the_root_namespace_obeys_the_meshs_word() -> None:
    pod = a_pod(f"{ROOT}/tool", "10.0.0.9", labels={"app": "client"})
    world = a_world(pod, says(REFUSE, to=f"{ROOT}/all"), says(ALLOW, to=f"{ROOT}/mine", **SELECTING))
    assert egress.outbound(world, pod).said_by == f"TrafficPolicy {ROOT}/all"


NETS = mesh.Destinations(networks=(ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8::/32")))
PORTS = mesh.Destinations(networks=(ipaddress.ip_network("203.0.113.7/32"),), ports=frozenset({443, 8443}))


@pytest.mark.parametrize(
    ("to", "port", "permitted"),
    [
        ("198.51.100.7", 1, True),
        ("2001:db8::1", 65535, True),
        ("203.0.113.7", 443, True),
        ("203.0.113.7", 80, False),
        ("203.0.113.8", 443, False),
        ("2001:db9::1", 443, False),
    ],
)
def test_what_is_listed_may_be_dialled_all_the_same(to: str, port: int, permitted: bool) -> None:
    world = a_world(CLIENT, says(REFUSE, allowed=(NETS, PORTS)))
    plan = route.plan(world, CLIENT, IP(to), port)
    assert isinstance(plan, route.Passthrough) is permitted
    if isinstance(plan, route.Refuse):
        assert plan.reason == "not_in_registry"
        assert "TrafficPolicy shop/p allows only those and what it lists" in plan.why


def test_a_pod_outside_the_mesh_is_not_dialled_where_mutual_tls_is_required() -> None:
    plain = a_pod("old/db", "10.0.0.2", enrolled=False, labels={"app": "db"})
    service = a_service("old/db", "10.96.0.9")
    world = a_world(CLIENT, plain, service, says(require_mtls=True))
    for to, port in (("10.0.0.2", 8080), ("10.96.0.9", 80)):
        plan = route.plan(world, CLIENT, IP(to), port)
        assert isinstance(plan, route.Refuse)
        assert plan.reason == "mtls_required"
        assert "TrafficPolicy shop/p requires mutual TLS" in plan.why


@pytest.mark.parametrize("key", ["shop/p", f"{ROOT}/p", "other/p"])
def test_a_change_is_heard_by_the_decisions_it_concerns_and_by_no_other(key: str) -> None:
    world = a_world(CLIENT)
    plan = route.plan(world, CLIENT, OUTSIDE, 443)
    after = world.replace([says(REFUSE, to=key)], revision="2")
    assert bool(diff(world, after).touched() & plan.deps) is (key != "other/p")


def test_a_world_made_anew_tells_the_same_difference() -> None:
    world, policy = a_world(CLIENT), says(REFUSE)
    after = world.replace([policy], revision="2")
    anew = World.build(workloads=[CLIENT], traffic_policies=[policy], revision="3")
    assert diff(world, anew).traffic_policies == diff(world, after).traffic_policies == {"shop/p"}
    assert anew.traffic_policies_in("shop") == (policy,)
    gone = after.replace([], [(mesh.TrafficPolicy, "shop/p")], revision="4")
    assert gone.traffic_policies_in("shop") == ()
