"""decide(): who may reach a pod. The oracle that reads the same rules another way is in test_policy_oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.model import mesh, policy
from ambient.model.mesh import Action, Match, Rule
from ambient.model.world import World, diff

from .builders import (
    IP,
    ROOT,
    a_node,
    a_peer_authentication,
    a_pod,
    a_policy,
    a_rule,
    a_world,
    an_identity,
)
from .judging import (
    ALL,
    ALLOW_ALL,
    ALLOW_NOBODY,
    ALLOW_NOTHING,
    CART,
    CLIENT,
    DENY_ALL,
    EVERYBODY,
    NOBODY,
    OTHER,
    PRECEDENCE,
    SERVER,
    allowed,
    judge,
    net,
)

# Every field: a value that matches this connection (front/cart at 10.1.0.2 to 10.1.0.1:8080), and one that does not.
FIELDS = [
    ("principals", ("cluster.local/ns/front/sa/cart",), ("cluster.local/ns/front/sa/other",)),
    ("principals", ("cluster.local/ns/front/*",), ("cluster.local/ns/back/*",)),
    ("principals", ("*/sa/cart",), ("*/sa/job",)),
    ("principals", ("*",), ("spiffe://cluster.local/ns/front/sa/cart",)),
    ("principals", ("x", "cluster.local/ns/front/sa/cart"), ("x", "y")),
    ("namespaces", ("front",), ("back",)),
    ("namespaces", ("fr*",), ("ba*",)),
    ("namespaces", ("*nt",), ("*ck",)),
    ("namespaces", ("*",), ("",)),
    ("service_accounts", ("front/cart",), ("back/cart",)),
    ("service_accounts", ("front/cart",), ("front/*",)),
    ("source_ips", net("10.1.0.2/32"), net("10.1.0.3/32")),
    ("source_ips", net("10.1.0.0/16"), net("10.2.0.0/16")),
    ("source_ips", net("0.0.0.0/0"), net("::/0")),
    ("destination_ips", net("10.1.0.1/32"), net("10.1.0.2/32")),
    ("destination_ips", net("10.0.0.0/8"), net("fd00::/8")),
    ("destination_ports", (8080,), (80,)),
    ("destination_ports", (1, 8080), (1, 2)),
]
SCOPES = {
    "namespace": {"key": "shop/p"},
    "workload": {"key": "shop/p", "selector": {"app": "web"}},
    "mesh": {"key": ROOT + "/p"},
    "workload from the root namespace": {"key": ROOT + "/p", "selector": {"app": "web"}},
}


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES.keys())
@pytest.mark.parametrize(("field", "hit", "miss"), FIELDS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("action", Action)
def test_a_field_matches_its_values_and_its_negative_form_all_others(
    action: Action, field: str, hit: Any, miss: Any, scope: dict[str, Any]
) -> None:
    more = {name: value for name, value in scope.items() if name != "key"}
    for name, value, is_match in [
        (field, hit, True),
        (field, miss, False),
        ("not_" + field, hit, False),
        ("not_" + field, miss, True),
    ]:
        written = a_policy(scope["key"], a_rule(Match(**{name: value})), action=action, **more)
        assert allowed(written) is (is_match == (action is Action.ALLOW)), (name, value)


@pytest.mark.parametrize(
    "written",
    [
        a_policy("back/p", action=Action.ALLOW),
        a_policy("shop/p", action=Action.ALLOW, selector={"app": "db"}),
        a_policy("shop/p", action=Action.ALLOW, selector={"app": "web", "tier": "back"}),
        a_policy(ROOT + "/p", action=Action.ALLOW, selector={"app": "db"}),
        a_policy("shop/p", action=Action.ALLOW, targets=("Service/web",)),
    ],
    ids=["other namespace", "other pods", "only half of the selector", "other pods everywhere", "a waypoint's"],
)
def test_a_policy_that_does_not_apply_to_the_pod_does_nothing(written: mesh.AuthorizationPolicy) -> None:
    verdict = judge(written)
    assert isinstance(verdict, policy.Allow)
    assert verdict.rule == "no policy"


@pytest.mark.parametrize(("policies", "may"), PRECEDENCE.values(), ids=PRECEDENCE.keys())
def test_deny_then_allow_then_what_is_left(policies: tuple[mesh.AuthorizationPolicy, ...], may: bool) -> None:
    assert allowed(*policies) is may


def test_matches_of_a_clause_are_alternatives_and_clauses_conditions() -> None:
    front, back, web = Match(namespaces=("front",)), Match(namespaces=("back",)), Match(destination_ports=(8080,))
    assert allowed(a_policy("shop/p", Rule(clauses=((back, front), (web,)))))
    assert not allowed(a_policy("shop/p", Rule(clauses=((back,), (front,)))))
    assert not allowed(a_policy("shop/p", Rule(clauses=((back, front), (Match(destination_ports=(80,)),)))))


def test_fields_of_a_match_are_conditions_and_a_negative_value_wins() -> None:
    assert allowed(a_policy("shop/p", a_rule(Match(namespaces=("front",), destination_ports=(8080,)))))
    assert not allowed(a_policy("shop/p", a_rule(Match(namespaces=("front",), destination_ports=(80,)))))
    assert not allowed(a_policy("shop/p", a_rule(Match(namespaces=("f*",), not_namespaces=("front",)))))


def test_a_match_without_fields_matches_nothing() -> None:
    assert not allowed(a_policy("shop/p", a_rule(Match())))
    assert allowed(a_policy("shop/p", a_rule(Match()), action=Action.DENY))


@pytest.mark.parametrize("field", ["principals", "namespaces", "service_accounts"])
def test_without_an_identity_no_positive_value_matches_and_no_negative_one_hits(field: str) -> None:
    for pattern in ("*", "", "front", "*t", "f*", "/"):
        assert not allowed(a_policy("shop/p", a_rule(Match(**{field: (pattern,)}))), peer=None), pattern
        assert allowed(a_policy("shop/p", a_rule(Match(**{"not_" + field: (pattern,)}))), peer=None), pattern


def test_service_accounts_do_not_look_at_the_trust_domain_and_principals_do() -> None:
    config = mesh.MeshConfig(trust_domain="prod")
    peer = an_identity("front/cart", "prod")
    assert allowed(a_policy("shop/p", a_rule(Match(service_accounts=("front/cart",)))), peer=peer, config=config)
    written = a_policy("shop/p", a_rule(Match(principals=("cluster.local/ns/front/sa/cart",))))
    assert not allowed(written, peer=peer, config=config)


def test_an_allow_rule_that_needs_l7_never_allows_and_a_deny_rule_denies_by_the_rest() -> None:
    front = a_rule(Match(namespaces=("front",)), needs_l7=True)
    assert not allowed(a_policy("shop/p", front))
    assert not allowed(a_policy("shop/p", front, action=Action.DENY))
    assert allowed(a_policy("shop/p", a_rule(Match(namespaces=("back",)), needs_l7=True), action=Action.DENY))
    assert not allowed(a_policy("shop/p", Rule(needs_l7=True), action=Action.DENY))


def test_verdicts_name_the_rule_and_the_reason() -> None:
    deny = judge(a_policy("shop/no-cart", NOBODY, EVERYBODY, action=Action.DENY))
    assert (deny.rule, deny.reason) == ("AuthorizationPolicy shop/no-cart rule 1", "denied_by_policy")
    assert "spiffe://cluster.local/ns/front/sa/cart" in deny.why
    none = judge(ALLOW_NOBODY, ALLOW_NOTHING)
    assert (none.rule, none.reason) == ("AuthorizationPolicy shop/allow-nobody, shop/allow-nothing", "no_allow_matched")
    assert judge(ALLOW_ALL).rule == "AuthorizationPolicy shop/allow-all rule 0"


def test_dry_run_policies_decide_nothing_and_say_what_they_would_do() -> None:
    verdict = judge(replace(DENY_ALL, dry_run=True), replace(ALLOW_NOBODY, dry_run=True))
    assert isinstance(verdict, policy.Allow)
    assert verdict.rule == "no policy"
    assert verdict.dry_run == (
        "AuthorizationPolicy shop/deny-all rule 0 would deny",
        "no rule of AuthorizationPolicy shop/allow-nobody matched: would deny",
    )
    assert judge(replace(ALLOW_ALL, dry_run=True)).dry_run == ("AuthorizationPolicy shop/allow-all rule 0 would allow",)
    assert not allowed(replace(ALLOW_ALL, dry_run=True), ALLOW_NOBODY)


# --- where data is missing or contradicts itself: refused


def test_a_pod_that_the_world_does_not_know_accepts_nobody() -> None:
    verdict = judge(ALLOW_ALL, server=a_pod("shop/gone", "10.1.0.9"))
    assert verdict.reason == "unknown_workload"


def test_a_pod_that_was_replaced_by_a_namesake_accepts_nobody() -> None:
    assert judge(server=replace(SERVER, uid="older")).reason == "unknown_workload"


def test_labels_are_the_worlds_not_those_the_caller_remembers() -> None:
    assert not allowed(replace(DENY_ALL, selector={"app": "web"}), server=replace(SERVER, labels={"app": "db"}))


@pytest.mark.parametrize(
    ("source", "reason"),
    [("10.1.0.3", "source_mismatch"), ("10.9.9.9", "unknown_source"), ("10.0.0.1", "unknown_source")],
    ids=["another pod's", "nobody's", "a node's"],
)
def test_an_identity_from_an_address_that_is_not_its_pods_is_refused(source: str, reason: str) -> None:
    verdict = judge(ALLOW_ALL, source=source)
    assert (verdict.rule, verdict.reason) == ("source address", reason)


def test_an_identity_from_an_address_that_two_pods_claim_is_refused() -> None:
    assert judge(a_pod("front/twin", "10.1.0.2", service_account="cart")).reason == "unknown_source"


def test_an_identity_of_another_trust_domain_is_refused() -> None:
    assert judge(peer=an_identity("front/cart", "elsewhere")).reason == "source_mismatch"


# --- dependencies: a change that could change the verdict touches one of its tokens


@pytest.mark.parametrize(
    "noun",
    [
        replace(SERVER, labels={}),
        a_policy("shop/new"),
        a_policy(ROOT + "/new"),
        a_peer_authentication("shop/new", "STRICT"),
        a_peer_authentication(ROOT + "/new", "STRICT"),
        replace(CLIENT, service_account="new"),
        replace(CLIENT, addresses=()),
        a_pod("back/twin", "10.1.0.2"),
    ],
    ids=lambda noun: f"{type(noun).__name__} {noun.key}",
)
def test_whatever_could_change_the_verdict_touches_it(noun: Any) -> None:
    world = a_world(*ALL, ALLOW_ALL)
    verdict = policy.decide(world, SERVER, peer=CART, source=IP("10.1.0.2"), to=IP("10.1.0.1"), port=8080)
    changes = touched(world, world.replace([noun], revision="2"))
    assert changes & verdict.deps


def touched(old: World, new: World) -> frozenset[str]:
    return diff(old, new).touched()


def test_what_cannot_change_the_verdict_does_not_touch_it() -> None:
    world = a_world(*ALL, ALLOW_ALL)
    verdict = policy.decide(world, SERVER, peer=CART, source=IP("10.1.0.2"), to=IP("10.1.0.1"), port=8080)
    unrelated = [replace(OTHER, ready=False), a_policy("back/p"), a_node("n3", "10.0.0.3"), mesh.Namespace(name="shop")]
    assert not touched(world, world.replace(unrelated, revision="2")) & verdict.deps
