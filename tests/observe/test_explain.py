"""`ambient explain` against Worlds: the answer is the deciders', put together for a person."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from ambient.model.mesh import (
    Action,
    AuthorizationPolicy,
    CaptureSettings,
    Match,
    MtlsMode,
    Namespace,
    Node,
    OutboundMode,
    PeerAuthentication,
    Rule,
    SameNode,
    Workload,
    address,
)
from ambient.observe import names
from ambient.observe.explain import explain

from .worlds import a_pod, a_service, a_world

CLIENT = a_pod("shop/client-1", "10.0.0.2")
WEB1, WEB2 = a_pod("shop/web-1", "10.0.1.2", node="b"), a_pod("shop/web-2", "10.0.1.3", node="b")
PLAIN = a_pod("other/plain-1", "10.0.1.9", enrolled=False)
WEB = a_service("shop/web", "10.96.0.1")
NOBODY = AuthorizationPolicy(namespace="shop", name="nobody", selector={"app": "web"})
ONLY_JOB = AuthorizationPolicy(
    namespace="shop", name="job", action=Action.DENY, selector={"app": "web"},
    rules=(Rule(clauses=((Match(principals=("cluster.local/ns/shop/sa/client",)),),)),),
)  # fmt: skip
STRICT = PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT)


def ask(*nouns: Any, source: str = "shop/client-1", to: str = "web:80") -> dict[str, Any]:
    return explain(a_world(CLIENT, WEB1, WEB, PLAIN, *nouns), source, to)


def only(found: dict[str, Any]) -> dict[str, Any]:
    (row,) = found["endpoints"]
    return row


def test_an_allowed_connection_names_endpoint_identities_and_rule() -> None:
    found = ask()
    row = only(found)
    assert (found["verdict"], found["captured"]) == ("allow", True)
    assert found["resolved"] == "Service shop/web: 10.96.0.1:80"
    assert (row["workload"], row["address"], row["path"]) == ("shop/web-1", "10.0.1.2:8080", "tunnel")
    assert row["client_identity"] == "spiffe://cluster.local/ns/shop/sa/client"
    assert row["server_identity"] == "spiffe://cluster.local/ns/shop/sa/web"
    assert row["rule"] == "no policy"


NEAR = a_pod("shop/near-1", "10.0.0.3")


@pytest.mark.parametrize(
    ("near", "path", "why"),
    [
        (NEAR, "direct", ""),
        (
            replace(NEAR, same_node=SameNode.MTLS),
            "tunnel",
            "not directly, though on one node: pod shop/near-1 wants mut",
        ),
        (replace(NEAR, node="b"), "tunnel", ""),
    ],
    ids=["two pods of one node", "one that must not be", "two nodes"],
)
def test_on_one_node_it_goes_directly_or_is_said_why_not(near: Workload, path: str, why: str) -> None:
    row = only(ask(near, to="near-1:8080"))
    assert (row["path"], row["verdict"]) == (path, "allow")
    assert row["why"].startswith(why)
    assert row["client_identity"] == "spiffe://cluster.local/ns/shop/sa/client"


@pytest.mark.parametrize(("node", "path"), [("a", "tunnel"), ("b", "direct")], ids=["its own", "another"])
def test_what_the_clients_node_has_met_keeps_it_from_the_direct_path(node: str, path: str) -> None:
    said = explain(
        a_world(CLIENT, NEAR), "shop/client-1", "near-1:8080", node=node,
        in_the_way=lambda client, server: f"{client} and {server} are set aside",
    )  # fmt: skip
    row = only(said)
    assert (row["path"], row["verdict"], said["node"]) == (path, "allow", "a")
    why = "not directly, though on one node: shop/client-1 and shop/near-1 are set aside"
    assert row["why"] == (why if node == "a" else "")


@pytest.mark.parametrize(("node", "verdict"), [("a", "allow"), ("b", "deny")], ids=["its own", "another"])
def test_addresses_that_the_clients_node_has_itself_are_no_missing_pods(node: str, verdict: str) -> None:
    bridge = address("10.0.0.1")
    world = a_world(CLIENT, Node(name="a", pod_networks=(ip_network("10.0.0.0/24"),)))
    said = explain(world, "shop/client-1", f"{bridge}:53", node=node, host={bridge})
    assert said["verdict"] == verdict


def test_a_service_of_more_pods_than_the_kernel_chooses_among_is_the_engines() -> None:
    few = [a_pod(f"shop/near-{n}", f"10.0.0.{n}") for n in range(10, 26)]
    near = a_service("shop/near", "10.96.0.9")
    assert {row["path"] for row in ask(near, *few, to="near:80")["endpoints"]} == {"direct"}
    more = [*few, a_pod("shop/near-26", "10.0.0.26")]
    assert {row["path"] for row in ask(near, *more, to="near:80")["endpoints"]} == {"tunnel"}


def test_what_is_denied_on_one_node_is_denied_in_a_tunnel_as_before() -> None:
    nobody = AuthorizationPolicy(namespace="shop", name="nobody", selector={"app": "near"})
    row = only(ask(NEAR, nobody, to="near-1:8080"))
    assert (row["path"], row["verdict"], row["reason"]) == ("tunnel", "deny", "no_allow_matched")


def test_a_denied_connection_names_policy_rule_and_reason() -> None:
    row = only(ask(ONLY_JOB))
    assert row["verdict"] == "deny"
    assert row["rule"] == "AuthorizationPolicy shop/job rule 0"
    assert row["reason"] == "denied_by_policy"


def test_endpoints_that_disagree_make_it_depend() -> None:
    one = AuthorizationPolicy(namespace="shop", name="v1", selector={"version": "v1"})
    marked = a_pod("shop/web-2", "10.0.1.3", labels={"app": "web", "version": "v1"})
    found = ask(marked, one)
    assert found["verdict"] == "depends"
    assert {row["workload"]: row["verdict"] for row in found["endpoints"]} == {
        "shop/web-1": "allow",
        "shop/web-2": "deny",
    }


def test_an_unenrolled_client_is_plaintext_and_strict_says_no() -> None:
    found = ask(STRICT, source="other/plain-1", to="web.shop:80")
    row = only(found)
    assert not found["captured"]
    assert "is not enrolled" in found["plan"]
    assert (row["path"], row["verdict"], row["reason"]) == ("plaintext", "deny", "strict_mtls")
    assert row["mtls"] == "STRICT (PeerAuthentication shop/strict)"


def test_a_server_that_is_not_captured_yet_is_reached_in_the_clear_and_has_no_policy() -> None:
    row = only(ask(ONLY_JOB, a_pod("shop/web-1", "10.0.1.2", node="b", captured=False)))
    assert (row["path"], row["verdict"], row["why"]) == ("plaintext", "allow", "the pod is not captured yet")


def test_a_pod_on_the_network_of_the_servers_node_is_let_in_where_a_probe_would_be_and_nowhere_else() -> None:
    monitor = a_pod("other/monitor-1", "192.0.2.2", node="b", enrolled=False, host_network=True)
    probed = a_pod("shop/web-1", "10.0.1.2", node="b", probe_ports=frozenset({8080}))
    row = only(ask(monitor, probed, STRICT, source="other/monitor-1", to="web.shop:80"))
    assert (row["verdict"], row["rule"]) == ("allow", "node-local probe of port 8080 from 192.0.2.2, of Node b")
    row = only(ask(monitor, STRICT, source="other/monitor-1", to="web.shop:80"))
    assert (row["verdict"], row["reason"]) == ("deny", "strict_mtls")


def test_an_unenrolled_server_has_no_policy() -> None:
    row = only(ask(to="10.0.1.9:80"))
    assert (row["path"], row["verdict"], row["rule"]) == ("plaintext", "allow", "no policy is enforced")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        pytest.param(CaptureSettings(exclude_outbound_ports=frozenset({80})), "exclude-outbound-ports", id="port"),
        pytest.param(
            CaptureSettings(exclude_outbound_cidrs=(ip_network("10.96.0.0/16"),)),
            "exclude-outbound-cidrs",
            id="network",
        ),
    ],
)
def test_what_the_client_excluded_is_not_captured(settings: CaptureSettings, why: str) -> None:
    found = ask(a_pod("shop/client-1", "10.0.0.2", capture=settings))
    assert not found["captured"]
    assert why in found["plan"]
    assert only(found)["path"] == "plaintext"


def test_what_the_server_excluded_is_not_judged() -> None:
    settings = CaptureSettings(exclude_inbound_ports=frozenset({8080}))
    server = a_pod("shop/web-1", "10.0.1.2", node="b", capture=settings)
    row = only(ask(server, STRICT, source="other/plain-1", to="web.shop:80"))
    assert (row["verdict"], row["rule"]) == ("allow", "no policy is enforced")


def test_a_refusal_of_the_plan_is_told_with_its_reason() -> None:
    found = ask(to="web:81")
    assert found["verdict"] == "deny"
    assert only(found)["reason"] == "no_such_port"
    found = ask(Namespace(name="shop", enrolled=True, outbound=OutboundMode.REGISTRY_ONLY), to="198.51.100.1:443")
    assert only(found)["reason"] == "not_in_registry"


def test_what_the_mesh_does_not_know_passes_in_plaintext() -> None:
    found = ask(to="198.51.100.1:443")
    assert (found["verdict"], only(found)["path"]) == ("allow", "plaintext")
    assert found["plan"] == "198.51.100.1 is unknown to the mesh"


def test_dry_run_policies_are_told_beside_the_verdict() -> None:
    trial = AuthorizationPolicy(namespace="shop", name="trial", selector={"app": "web"}, dry_run=True)
    row = only(ask(trial))
    assert row["verdict"] == "allow"
    assert row["dry_run"] == ["no rule of AuthorizationPolicy shop/trial matched: would deny"]


def test_a_headless_service_is_every_ready_pod_of_the_clients_family() -> None:
    headless = a_service("shop/web")
    six = a_pod("shop/web-3", "2001:db8::3")
    found = explain(a_world(CLIENT, WEB1, WEB2, six, headless), "shop/client-1", "web:8080")
    assert [row["address"] for row in found["endpoints"]] == ["10.0.1.2:8080", "10.0.1.3:8080"]


@pytest.mark.parametrize(
    ("to", "resolved"),
    [
        pytest.param("web:80", "Service shop/web: 10.96.0.1:80", id="bare name"),
        pytest.param("web.shop:80", "Service shop/web: 10.96.0.1:80", id="with namespace"),
        pytest.param("web.shop.svc:80", "Service shop/web: 10.96.0.1:80", id="svc"),
        pytest.param("web.shop.svc.cluster.local:80", "Service shop/web: 10.96.0.1:80", id="whole"),
        pytest.param("10.96.0.1:80", "address 10.96.0.1: 10.96.0.1:80", id="vip"),
        pytest.param("web-1:8080", "pod shop/web-1: 10.0.1.2:8080", id="pod"),
        pytest.param("other/plain-1:80", "pod other/plain-1: 10.0.1.9:80", id="pod elsewhere"),
        pytest.param("[2001:db8::1]:80", "address 2001:db8::1: [2001:db8::1]:80", id="IPv6"),
        pytest.param("[::ffff:10.96.0.1]:80", "address 10.96.0.1: 10.96.0.1:80", id="mapped"),
    ],
)
def test_names_are_what_the_pods_dns_would_make_of_them(to: str, resolved: str) -> None:
    assert ask(to=to)["resolved"] == resolved


@pytest.mark.parametrize(
    "text", ["", "web", "web:", ":80", "web:http", "web:0", "web:65536", "web:-1", "2001:db8::1:80", "web:²"]
)
def test_what_is_no_host_and_port_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        names.split(text)


def test_unknown_names_come_with_the_known_that_are_near() -> None:
    with pytest.raises(ValueError, match=r"there is no pod 'shop/client' .*; there is shop/client-1"):
        ask(source="shop/client")
    with pytest.raises(ValueError, match=r"'wep' is no service, pod or address .*; there is shop/web"):
        ask(to="wep:80")


def test_names_without_an_address_say_so() -> None:
    with pytest.raises(ValueError, match="has no address yet"):
        ask(a_pod("shop/new-1", "10.9.9.9", addresses=()), to="new-1:80")
    with pytest.raises(ValueError, match="none of its pods is ready"):
        ask(a_service("shop/none"), to="none:80")


def test_an_allow_policy_without_rules_refuses_everybody() -> None:
    assert only(ask(NOBODY))["reason"] == "no_allow_matched"


def test_a_client_without_the_familys_address_cannot_get_there() -> None:
    six = a_pod("shop/web-1", "2001:db8::2")
    row = only(ask(six, to="[2001:db8::2]:80"))
    assert (row["verdict"], row["reason"]) == ("deny", "no_address")
    assert address("10.0.0.2") in CLIENT.addresses
