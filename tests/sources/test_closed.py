"""What stands for an object that cannot be read, where one must go on: never more open than what was meant."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ambient.model import mesh, policy
from ambient.model.mesh import MtlsMode, OutboundMode
from ambient.model.world import World
from ambient.sources import manifests
from ambient.sources.inventory import Inventory

ROOT = mesh.MeshConfig().root_namespace
WEB = {"matchLabels": {"app": "web"}}
CLIENT_IP, WEB_IP, DB_IP, NODE_IP = (mesh.address(f"10.1.0.{n}") for n in (9, 1, 2, 100))


def a_manifest(kind: str, version: str = "v1", spec: Any = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "x", "namespace": "shop"} | metadata,
        "spec": spec,
    }


def a_policy(spec: Any, kind: str = "AuthorizationPolicy", **metadata: Any) -> dict[str, Any]:
    return a_manifest(kind, "security.istio.io/v1", spec, **metadata)


def a_pod(name: str, ip: mesh.IPAddress) -> dict[str, Any]:
    found = a_manifest("Pod", spec={"nodeName": "n1"}, name=name, uid=name, labels={"app": name})
    return found | {"status": {"podIP": str(ip)}}


def stand_in(manifest: dict[str, Any]) -> Any:
    found = manifests.translate(manifest)
    assert found.object is None
    assert found.problems
    return found.stand_in


def a_world(*more: dict[str, Any]) -> World:
    """A client, web and db in the namespace shop, and what is given, or what stands for it."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    node |= {"status": {"addresses": [{"type": "InternalIP", "address": str(NODE_IP)}]}}
    pods = [a_pod("client", CLIENT_IP), a_pod("web", WEB_IP), a_pod("db", DB_IP)]
    read = [manifests.translate(manifest) for manifest in (node, *pods, *more)]
    found = [(one.ref, one.object or one.stand_in) for one in read]
    return Inventory(World()).apply([(ref, o) for ref, o in found if o], (), revision="1").world


def judged(world: World, server: str, *, plaintext: bool = False, source: mesh.IPAddress = CLIENT_IP) -> Any:
    peer = None if plaintext else mesh.Identity("cluster.local", "shop", "default")
    web = world.workloads[f"shop/{server}"]
    return policy.decide(world, web, peer=peer, source=source, to=web.addresses[0], port=80)


BAD_RULES = [{"form": []}]
DENIED = {
    "what it selects": (a_policy({"selector": WEB, "rules": BAD_RULES}), {"web"}),
    "its namespace": (a_policy({"rules": BAD_RULES}), {"web", "db"}),
    "its namespace, as its selector cannot be read": (
        a_policy({"selector": {"matchLabels": {"app": "w*"}}, "rules": [{}]}),
        {"web", "db"},
    ),
    "its namespace, as nothing of it can be read": (a_policy([]), {"web", "db"}),
    "what it selects, as its target is another error": (
        a_policy({"selector": WEB, "targetRef": {"kind": "Service", "name": "x"}}),
        {"web"},
    ),
    "its namespace, as its target cannot be read": (a_policy({"targetRef": {"name": "x"}}), {"web", "db"}),
    "what an unknown kind of action was for": (a_policy({"selector": WEB, "action": "CUSTOM"}), {"web"}),
    "the mesh's": (a_policy({"selector": WEB, "rules": BAD_RULES}, namespace=ROOT), {"web"}),
    "nothing, as it is of another namespace": (a_policy({"rules": BAD_RULES}, namespace="other"), set()),
    "nothing at L4, as it is for a waypoint": (
        a_policy({"targetRef": {"kind": "Service", "name": "x"}, "rules": BAD_RULES}),
        set(),
    ),
    "nothing, as it is only tried": (a_policy({"rules": BAD_RULES}, annotations={"istio.io/dry-run": "true"}), set()),
    "its namespace, as whether it is tried cannot be read": (
        a_policy({"rules": [{}]}, annotations={"istio.io/dry-run": "yes"}),
        {"web", "db"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("manifest", "denied"), DENIED.values(), ids=DENIED.keys())
@pytest.mark.parametrize("plaintext", [False, True], ids=["a tunnel", "plaintext"])
def test_an_authorization_policy_that_cannot_be_read_denies(
    manifest: dict[str, Any], denied: set[str], plaintext: bool
) -> None:
    world = a_world(manifest)
    verdicts = {server: judged(world, server, plaintext=plaintext) for server in ("web", "db")}
    assert {server for server, verdict in verdicts.items() if isinstance(verdict, policy.Deny)} == denied
    for server in denied:
        assert "(unreadable: denies all) rule 0" in verdicts[server].rule
        assert verdicts[server].reason == "denied_by_policy"


def test_an_allow_beside_one_that_cannot_be_read_does_not_help() -> None:
    verdict = judged(a_world(a_policy({"rules": [{}]}, name="all"), a_policy({"rules": BAD_RULES})), "web")
    assert isinstance(verdict, policy.Deny)


def test_the_kubelet_still_probes() -> None:
    world = a_world(a_policy({"rules": BAD_RULES}), a_policy({"mtls": []}, "PeerAuthentication"))
    probed = dataclasses.replace(world.workloads["shop/web"], probe_ports=frozenset({80}))
    world = world.replace([probed], revision="2")
    assert isinstance(judged(world, "web", plaintext=True, source=NODE_IP), policy.Allow)


PERMISSIVE = a_policy({"mtls": {"mode": "PERMISSIVE"}}, "PeerAuthentication", name="old", creationTimestamp="2020")
STRICT = {
    "what it selects": ({"selector": WEB, "mtls": {"mode": "strict"}}, {"web"}),
    "every port of it": ({"selector": WEB, "portLevelMtls": {"80": {"mode": "PERMISSIVE"}, "x": {}}}, {"web"}),
    "its namespace": ({"mode": "PERMISSIVE"}, {"web", "db"}),
    "its namespace, as its selector cannot be read": ({"selector": {"matchLabels": []}}, {"web", "db"}),
    "its namespace, as nothing of it can be read": ("STRICT", {"web", "db"}),
}


@pytest.mark.parametrize(("spec", "strict"), STRICT.values(), ids=STRICT.keys())
def test_a_peer_authentication_that_cannot_be_read_makes_strict(spec: Any, strict: set[str]) -> None:
    world = a_world(a_policy(spec, "PeerAuthentication", creationTimestamp="2026"))
    verdicts = {server: judged(world, server, plaintext=True) for server in ("web", "db")}
    assert {server for server, verdict in verdicts.items() if isinstance(verdict, policy.Deny)} == strict
    assert all("shop/x (unreadable: STRICT)" in verdicts[server].rule for server in strict)
    assert all(isinstance(judged(world, server), policy.Allow) for server in verdicts)


def test_one_that_is_younger_gives_way_as_it_would_if_it_could_be_read_unless_whom_it_concerns_is_unknown() -> None:
    known = a_policy({"mtls": {"mode": "strict"}}, "PeerAuthentication", creationTimestamp="2026")
    assert isinstance(judged(a_world(PERMISSIVE, known), "web", plaintext=True), policy.Allow)
    unknown = a_policy({"selector": {"app": "web"}}, "PeerAuthentication", creationTimestamp="2026")
    assert isinstance(judged(a_world(PERMISSIVE, unknown), "web", plaintext=True), policy.Deny)


def test_settings_of_a_namespace_that_cannot_be_read_are_the_strict_ones() -> None:
    labels = {"ambient.dev/mode": "on", "ambient.dev/outbound": "none", "ambient.dev/require-mtls": "yes"}
    found = stand_in(a_manifest("Namespace", labels=labels))
    assert (found.enrolled, found.outbound, found.require_mtls) == (True, OutboundMode.REGISTRY_ONLY, True)


@pytest.mark.parametrize("kind", ["Namespace", "Pod"])
def test_a_wish_for_the_own_node_that_cannot_be_read_is_one_for_encryption(kind: str) -> None:
    found = stand_in(a_manifest(kind, annotations={"ambient.dev/same-node": "of course"}))
    assert getattr(found, "workload", found).same_node is mesh.SameNode.MTLS


def test_a_pod_whose_label_cannot_be_read_is_in_the_mesh() -> None:
    assert stand_in(a_manifest("Pod", labels={"ambient.dev/mode": "on"})).wants is True


def test_a_list_with_a_mistake_excludes_nothing_and_the_others_what_they_say() -> None:
    annotations = {
        "ambient.dev/exclude-outbound-ports": "3306, http",
        "ambient.dev/exclude-outbound-cidrs": "10.0.0.0/8, 10.0.0.0/40",
        "ambient.dev/exclude-inbound-ports": "9090",
    }
    assert stand_in(a_manifest("Pod", annotations=annotations)).workload.capture == mesh.CaptureSettings(
        exclude_inbound_ports=frozenset({9090})
    )


def test_of_other_objects_stays_what_could_be_read() -> None:
    """Without its Service, a VIP would be unknown: dialled in the clear."""
    spec = {"clusterIP": "10.96.0.1", "trafficDistribution": "PreferMoon", "ports": [{"port": 80}, {"port": 0}]}
    found = stand_in(a_manifest("Service", spec=spec))
    assert (found.vips, [port.port for port in found.ports]) == ((mesh.address("10.96.0.1"),), [80])
    assert found.distribution is mesh.TrafficDistribution.ANY


def test_policies_of_one_name_in_both_groups_hold_both_and_can_be_told_apart() -> None:
    ours = a_policy({"selector": WEB}) | {"apiVersion": "ambient.dev/v1alpha1"}
    istios = a_policy({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["80"]}}]}]})
    alone, both = a_world(istios), a_world(istios, ours)
    assert alone.policies.keys() == {"shop/x"}
    assert both.policies.keys() == {"shop/x", "shop/x (security.istio.io)"}
    assert judged(both, "db").rule == "AuthorizationPolicy shop/x (security.istio.io) rule 0"


def test_a_twin_takes_its_name_back_when_it_is_alone_again() -> None:
    ours = manifests.translate(
        a_policy({"mtls": {"mode": "STRICT"}}, "PeerAuthentication") | {"apiVersion": "ambient.dev/v1alpha1"}
    )
    istios = manifests.translate(a_policy({"mtls": {"mode": "PERMISSIVE"}}, "PeerAuthentication"))
    assert ours.object
    assert istios.object
    one = Inventory(World()).apply([(istios.ref, istios.object)], (), revision="1")
    two = one.apply([(ours.ref, ours.object)], (), revision="2")
    named = {key: auth.mode for key, auth in two.world.peer_authentications.items()}
    assert named == {"shop/x": MtlsMode.STRICT, "shop/x (security.istio.io)": MtlsMode.PERMISSIVE}
    assert two.apply((), [ours.ref], revision="1").world == one.world
    assert two.apply((), [istios.ref], revision="3").world.peer_authentications.keys() == {"shop/x"}


@pytest.mark.parametrize(
    ("mode", "announced", "annotations", "captured"),
    [
        ("enabled", False, {}, True),
        ("disabled", False, {}, False),
        ("enabled", True, {}, False),
        ("enabled", True, {"ambient.dev/captured": "true"}, True),
        ("enabled", True, {"ambient.dev/captured": "yes"}, False),
        ("disabled", True, {"ambient.dev/captured": "true"}, True),
    ],
)
def test_a_pod_is_captured_if_it_says_so_or_where_pods_do_not_say_so_if_it_is_enrolled(
    mode: str, announced: bool, annotations: dict[str, str], captured: bool
) -> None:
    pod = manifests.translate(a_manifest("Pod", labels={"ambient.dev/mode": mode}, annotations=annotations))
    assert pod.object
    world = Inventory(World(), announced).apply([(pod.ref, pod.object)], (), revision="1").world
    assert world.workloads["shop/x"].captured is captured
    assert world.workloads["shop/x"].tunnelled is (captured and mode == "enabled")
