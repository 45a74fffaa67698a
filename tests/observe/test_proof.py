"""What proves that mutual TLS is on, and what each missing piece is called."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from ambient.observe.proof import Proof, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Row = dict[str, Any]
API = {"b": ["shop/api"]}


def a_pod(name: str = "web", node: str = "a", **more: Any) -> Row:
    identity = f"spiffe://cluster.local/ns/shop/sa/{name}"
    return {
        "pod": f"shop/{name}",
        "node": node,
        "addresses": ["10.0.0.2"],
        "enrolled": True,
        "host_network": False,
        "identity": identity,
        "modes": [{"port": 0, "mode": "STRICT", "said_by": "PeerAuthentication shop/strict"}],
        "exclude_inbound": [],
        "exclude_outbound": [],
        "probe_ports": [],
        "state": "captured",
        "certificate": {"identity": identity, "not_after": "2026-01-02T00:00:00Z", "error": ""},
        "knocks": [
            {"address": at, "outcome": "refused", "reason": "strict_mtls", "rule": "shop/strict"}
            for at in ("10.0.0.2:8080", "[fd00::2]:8080")
        ],
        "clear": [],
    } | more


def said_by(*pods: Row, node: str = "a", **more: Any) -> Row:
    said = {"node": node, "known": True, "egress": "refused", "blockers": [], "errors": [], "paths": []}
    return said | {"pods": list(pods), "elsewhere": {}} | more


def claims(found: Proof) -> list[tuple[str, str]]:
    return [(problem.about, problem.claim) for problem in found.problems]


def test_it_is_proven_when_every_pods_own_agent_says_so() -> None:
    found = judge("shop", [said_by(a_pod(), elsewhere=API), said_by(a_pod("api", "b"), node="b")], NOW)
    assert (found.proven, found.problems, found.notes) == (True, [], [])
    assert [pod["state"] for pod in found.pods] == ["captured", "captured"]


CLEAR_IN = {"direction": "in", "port": 8080, "peer": "198.51.100.7:4000", "kind": "outside"}
CLEAR_OUT = {"direction": "out", "port": 8080, "peer": "shop/api 10.0.0.3:8080", "kind": "mesh"}
PERMISSIVE = {"port": 0, "mode": "PERMISSIVE", "said_by": "no PeerAuthentication"}
REFUSED, IPV6_REFUSED = a_pod()["knocks"]
MISSING: list[tuple[str, Row, str, str]] = [
    ("not enrolled", {"enrolled": False}, "enrolled", "it is not in the mesh"),
    ("on the node's network", {"host_network": True}, "enrolled", "the node's own network"),
    ("not captured", {"state": "waiting: no process"}, "captured", "is not captured: waiting: no process"),
    ("not looked at yet", {"state": ""}, "captured", "has not come to it yet"),
    ("no certificate", {"certificate": None}, "certificate", "it has no certificate for spiffe://"),
    (
        "no certificate, with the CA's word",
        {"certificate": {"not_after": "", "error": "the CA is away"}},
        "certificate",
        "the CA is away",
    ),
    (
        "an old certificate",
        {"certificate": {"not_after": "2026-01-01T00:00:00Z", "error": ""}},
        "certificate",
        "expired at 2026-01-01T00:00:00Z",
    ),
    ("permissive", {"modes": [PERMISSIVE], "knocks": []}, "strict", "plaintext is accepted on its ports: PERMISSIVE"),
    (
        "a permissive port",
        {"modes": [*a_pod()["modes"], PERMISSIVE | {"port": 9090}]},
        "strict",
        "plaintext is accepted on port 9090",
    ),
    ("nobody tried", {"knocks": []}, "refusal", "no plaintext connection was tried"),
    (
        "let in by IPv6",
        {"knocks": [REFUSED, IPV6_REFUSED | {"outcome": "let in"}]},
        "refusal",
        "[fd00::2]:8080 was let in",
    ),
    ("let in", {"knocks": [REFUSED | {"outcome": "let in"}, IPV6_REFUSED]}, "refusal", "was let in"),
    ("unanswered", {"knocks": [REFUSED | {"outcome": "unanswered"}, IPV6_REFUSED]}, "refusal", "nobody judged it"),
    ("unreachable", {"knocks": [REFUSED | {"outcome": "unreachable"}, IPV6_REFUSED]}, "refusal", "could not be made"),
    (
        "refused for another reason",
        {"knocks": [REFUSED | {"reason": "denied_by_policy"}, IPV6_REFUSED]},
        "refusal",
        "denied_by_policy",
    ),
    ("an excluded port in", {"exclude_inbound": [9090]}, "excluded", "exclude-inbound-… keeps 9090 out"),
    ("an excluded network out", {"exclude_outbound": ["10.0.0.0/8"]}, "excluded", "keeps 10.0.0.0/8 out"),
    ("plaintext in, now", {"clear": [CLEAR_IN]}, "clear", "from 198.51.100.7:4000 (port 8080)"),
    ("plaintext out to the mesh, now", {"clear": [CLEAR_OUT]}, "clear", "to shop/api 10.0.0.3:8080"),
    ("nobody could look", {"clear": None}, "clear", "could not be looked at"),
]


@pytest.mark.parametrize(("fields", "claim", "says"), [case[1:] for case in MISSING], ids=[case[0] for case in MISSING])
def test_one_missing_piece_is_one_problem_with_a_way_out(fields: Row, claim: str, says: str) -> None:
    found = judge("shop", [said_by(a_pod(**fields), a_pod("api"))], NOW)
    assert claims(found) == [("shop/web", claim)]
    assert not found.proven
    assert says in found.problems[0].found
    assert found.problems[0].todo


def test_a_pod_whose_agent_was_not_heard_is_not_proven_by_another() -> None:
    found = judge("shop", [said_by(a_pod(), elsewhere=API)], NOW)
    assert claims(found) == [("shop/api", "agent")]
    assert "it is on node b, from which no agent answered" in found.problems[0].found


def test_nor_one_that_its_agent_does_not_know() -> None:
    found = judge("shop", [said_by(a_pod(), elsewhere=API), said_by(node="b")], NOW)
    assert claims(found) == [("shop/api", "agent")]
    assert "the agent of its node b does not know it" in found.problems[0].found


def test_nor_one_that_is_on_no_node_yet() -> None:
    found = judge("shop", [said_by(a_pod(), elsewhere={"": ["shop/new"]})], NOW, expected={"shop/web", "shop/new"})
    assert claims(found) == [("shop/new", "agent")]
    assert "no node yet" in found.problems[0].found


@pytest.mark.parametrize(
    ("more", "claim"),
    [
        ({"blockers": ["capture: a link is gone"]}, "agent"),
        ({"blockers": ["engine"]}, "agent"),
        ({"errors": ["shop/x: spec.action: expected ALLOW"]}, "configuration"),
    ],
)
def test_an_agent_that_is_not_well_casts_doubt_on_its_pods(more: Row, claim: str) -> None:
    assert claims(judge("shop", [said_by(a_pod(), **more)], NOW)) == [("node a", claim)]
    assert judge("shop", [said_by(a_pod()), said_by(node="b", **more)], NOW).proven, "it has no pod of ours"


def test_another_pods_trouble_is_not_this_namespaces() -> None:
    assert judge("shop", [said_by(a_pod(), blockers=["pod other/job: not found"])], NOW).proven


@pytest.mark.parametrize(("known", "says"), [(True, "it has no pods"), (False, "no agent knows this namespace")])
def test_nothing_is_proven_of_nobody(known: bool, says: str) -> None:
    found = judge("shop", [said_by(known=known)], NOW)
    assert claims(found) == [("shop", "pods")]
    assert found.problems[0].found == says


def test_a_pod_that_only_kubernetes_knows_is_not_proven() -> None:
    found = judge("shop", [said_by(a_pod())], NOW, expected={"shop/web", "shop/new"})
    assert claims(found) == [("shop/new", "pods")]


NOTES: list[tuple[str, Callable[[], Row], str]] = [
    ("probes", lambda: said_by(a_pod(probe_ports=[8080])), "reaches the ports of its probes: shop/web (8080)"),
    (
        "passthrough now",
        lambda: said_by(a_pod(clear=[CLEAR_OUT | {"kind": "outside", "peer": "198.51.100.7:443"}])),
        "shop/web talks in plaintext to what is outside the mesh: 198.51.100.7:443",
    ),
    (
        "plaintext once",
        lambda: said_by(a_pod(), paths=[a_path("in", "plaintext", 3)]),
        "3 connections came in plaintext, the last at T: shop/x",
    ),
    ("plaintext out is allowed", lambda: said_by(a_pod(), egress="allowed"), "may dial what is outside the mesh"),
]


def a_path(direction: str, path: str, ended: int, last: str = "T") -> Row:
    return {"direction": direction, "path": path, "ended": ended, "open": 1, "last": last, "last_peer": "shop/x"}


@pytest.mark.parametrize(("said", "says"), [case[1:] for case in NOTES], ids=[case[0] for case in NOTES])
def test_what_is_not_promised_is_a_note_and_no_problem(said: Callable[[], Row], says: str) -> None:
    found = judge("shop", [said()], NOW)
    assert found.proven
    assert [note for note in found.notes if says in note], found.notes


def test_probes_are_kubelets_own_way_in() -> None:
    probe = {"direction": "in", "port": 8080, "peer": "Node a 192.0.2.1:4000", "kind": "probe"}
    assert judge("shop", [said_by(a_pod(clear=[probe]))], NOW).proven


def test_one_nodes_pods_may_be_judged_alone() -> None:
    found = judge("shop", [said_by(a_pod(), elsewhere=API)], NOW, node="a")
    assert (found.proven, [pod["pod"] for pod in found.pods]) == (True, ["shop/web"])
    assert found.notes == ["only the pods of node a were judged"]
    assert claims(judge("shop", [said_by(elsewhere=API)], NOW, node="a")) == [("shop", "pods")]


def test_counts_of_all_agents_are_added_and_the_latest_is_named() -> None:
    late = a_path("in", "tunnel", 2, "U") | {"last_peer": "shop/y"}
    found = judge("shop", [said_by(a_pod(), paths=[a_path("in", "tunnel", 1)]), said_by(paths=[late], node="b")], NOW)
    assert found.paths == [a_path("in", "tunnel", 3, "U") | {"open": 2, "last_peer": "shop/y"}]


def test_the_order_is_stable() -> None:
    said = [
        said_by(a_pod("z", enrolled=False), a_pod("a", state="")),
        said_by(a_pod("b", "b", knocks=[]), node="b"),
    ]
    assert judge("shop", said, NOW) == judge("shop", list(reversed(said)), NOW)
    assert [about for about, _ in claims(judge("shop", said, NOW))] == ["shop/a", "shop/b", "shop/z"]


def test_what_the_kernel_vouches_for_is_proven_and_what_it_does_not_is_not() -> None:
    assert judge("shop", [said_by(a_pod(clear=[CLEAR_IN | {"kind": "direct"}]))], NOW).proven
    assert judge("shop", [said_by(a_pod(clear=[CLEAR_OUT | {"kind": "direct"}]))], NOW).proven
    found = judge("shop", [said_by(a_pod(clear=[CLEAR_IN | {"kind": "direct"}, CLEAR_IN | {"kind": "mesh"}]))], NOW)
    assert claims(found) == [("shop/web", "clear")]


def test_that_what_is_direct_is_not_encrypted_is_a_note_unless_nobody_is() -> None:
    (note,) = judge("shop", [said_by(a_pod(same_node="direct"), a_pod("api", same_node="mtls"))], NOW).notes
    assert "their bytes are not encrypted" in note
    assert judge("shop", [said_by(a_pod(same_node="mtls"))], NOW).notes == []
