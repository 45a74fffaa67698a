"""What stands for each object, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.model import mesh
from ambient.sources.kubernetes import kinds
from ambient.sources.kubernetes.ledger import INSTEAD, LAST_GOOD, SETTINGS, Ledger
from ambient.sources.kubernetes.outcomes import Outcomes
from ambient.sources.kubernetes.wire import Change, Event
from ambient.sources.manifests import Ref

POLICY, PODS = kinds.POLICIES[2], kinds.CORE[3]
REF = Ref("AuthorizationPolicy", "shop/web", "security.istio.io")
ALLOW, DENY, BAD = {"rules": [{}]}, {"action": "DENY", "rules": [{}]}, {"rules": [{"form": []}]}


def a_policy(spec: Any, name: str = "web", uid: str = "u1", generation: int = 1) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "uid": uid, "generation": generation}, "spec": spec}


def a_pod(name: str = "web", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "uid": "u-" + name, **more}}


def a_ledger(resource: kinds.Resource = POLICY) -> Ledger:
    return Ledger(resource, Outcomes())


def relist(ledger: Ledger, *objects: dict[str, Any]) -> dict[Ref, Any]:
    ledger.started()
    ledger.found(objects, "v1")
    return ledger.listed()


def happen(ledger: Ledger, *events: tuple[str, dict[str, Any]]) -> dict[Ref, Any]:
    return ledger.happened([Event(Change[change], found, "1") for change, found in events], "v1")


def outcome(ledger: Ledger) -> tuple[bool, int, str]:
    """Accepted? Of which generation? And what holds instead?"""
    (found,) = ledger.outcomes.all.values()
    assert (found.ref, found.api_version, found.namespace, found.name) == (
        REF,
        "security.istio.io/v1",
        "shop",
        "web",
    )
    return not found.problems, found.generation, found.instead


def test_a_list_is_told_as_the_difference_to_what_was_known() -> None:
    ledger = a_ledger(PODS)
    assert relist(ledger, a_pod("a"), a_pod("b")).keys() == {Ref("Pod", "shop/a"), Ref("Pod", "shop/b")}
    changed = relist(ledger, a_pod("b"), a_pod("c", labels={"x": "y"}))
    assert changed.keys() == {Ref("Pod", "shop/a"), Ref("Pod", "shop/c")}
    assert changed[Ref("Pod", "shop/a")] is None
    assert relist(ledger, a_pod("b"), a_pod("c", labels={"x": "y"})) == {}


def test_a_list_that_did_not_end_changed_nothing() -> None:
    ledger = a_ledger(PODS)
    relist(ledger, a_pod("a"))
    ledger.started()
    ledger.found([a_pod("b")], "v1")
    assert relist(ledger, a_pod("a")) == {}


def test_events_are_told_unless_they_change_nothing_we_know_of() -> None:
    ledger = a_ledger(PODS)
    pod = Ref("Pod", "shop/a")
    assert happen(ledger, ("ADDED", a_pod("a"))).keys() == {pod}
    assert happen(ledger, ("MODIFIED", a_pod("a", annotations={"heartbeat": "2"}))) == {}
    assert happen(ledger, ("ADDED", a_pod("a")), ("MODIFIED", a_pod("a", uid="other"))).keys() == {pod}
    assert happen(ledger, ("DELETED", a_pod("a"))) == {pod: None}
    assert happen(ledger, ("DELETED", a_pod("a"))) == {}
    assert happen(ledger, ("ADDED", a_pod("a")), ("DELETED", a_pod("a"))) == {pod: None}


def test_every_policy_has_an_outcome_until_it_is_gone() -> None:
    ledger = a_ledger()
    relist(ledger, a_policy(ALLOW))
    assert outcome(ledger) == (True, 1, "")
    happen(ledger, ("MODIFIED", a_policy(DENY, generation=2)))
    assert outcome(ledger) == (True, 2, "")
    happen(ledger, ("DELETED", a_policy(DENY, generation=2)))
    assert not ledger.outcomes.all
    relist(ledger, a_policy(BAD))
    relist(ledger)
    assert not ledger.outcomes.all


def test_other_objects_have_one_only_while_something_is_wrong_with_them() -> None:
    ledger = a_ledger(PODS)
    relist(ledger, a_pod("a"), a_pod("web", labels={"ambient.dev/mode": "on"}))
    (found,) = ledger.outcomes.all.values()
    assert (found.ref.key, found.instead) == ("shop/web", SETTINGS)
    assert found.problems[0].path == 'metadata.labels["ambient.dev/mode"]'
    happen(ledger, ("MODIFIED", a_pod("web")))
    assert not ledger.outcomes.all


def test_a_policy_that_cannot_be_read_any_more_stays_as_it_was() -> None:
    ledger = a_ledger()
    relist(ledger, a_policy(ALLOW))
    assert happen(ledger, ("MODIFIED", a_policy(BAD, generation=2))) == {}
    assert outcome(ledger) == (False, 2, LAST_GOOD)
    assert relist(ledger, a_policy({"rules": 1}, generation=3)) == {}
    assert outcome(ledger) == (False, 3, LAST_GOOD)
    changed = happen(ledger, ("MODIFIED", a_policy(DENY, generation=4)))
    assert changed[REF] == mesh.AuthorizationPolicy(
        namespace="shop", name="web", action=mesh.Action.DENY, rules=(mesh.Rule(),)
    )
    assert outcome(ledger) == (True, 4, "")


def test_a_policy_that_never_could_be_read_is_closed() -> None:
    ledger = a_ledger()
    stands: Any = relist(ledger, a_policy(BAD))[REF]
    assert (stands.name, stands.action) == ("web (unreadable: denies all)", mesh.Action.DENY)
    assert outcome(ledger) == (False, 1, INSTEAD["AuthorizationPolicy"])
    assert happen(ledger, ("MODIFIED", a_policy(BAD, generation=2))) == {}
    stands = happen(ledger, ("MODIFIED", a_policy(ALLOW, generation=3)))[REF]
    assert (stands.name, stands.action) == ("web", mesh.Action.ALLOW)


def test_a_traffic_policy_has_an_outcome_and_is_closed_while_it_cannot_be_read() -> None:
    (resource,) = (each for each in kinds.POLICIES if each.kind == "TrafficPolicy")
    ledger, ref = a_ledger(resource), Ref("TrafficPolicy", "shop/web", "ambient.dev")
    good, bad = ({"outbound": {"mtls": mtls}} for mtls in ("Required", "yes"))

    def listed(spec: Any) -> Any:
        ledger.started()
        ledger.found([a_policy(spec)], "v1alpha1")
        stands = ledger.listed()[ref]
        return stands, ledger.outcomes.all[ref]

    stands, outcome = listed(bad)
    assert (stands.name, stands.require_mtls) == ("web (unreadable: refuses)", True)
    assert outcome.instead == INSTEAD["TrafficPolicy"]
    stands, outcome = listed(good)
    assert (stands.name, stands.require_mtls, outcome.problems) == ("web", True, ())


@pytest.mark.parametrize("how", ["deleted and made anew", "made anew while nobody looked"])
def test_what_another_policy_of_its_name_said_is_not_its_last_good_version(how: str) -> None:
    ledger = a_ledger()
    relist(ledger, a_policy(ALLOW))
    if how == "deleted and made anew":
        changed = happen(ledger, ("DELETED", a_policy(ALLOW)), ("ADDED", a_policy(BAD, uid="u2")))
    else:
        changed = relist(ledger, a_policy(BAD, uid="u2"))
    stands: Any = changed[REF]
    assert stands.name == "web (unreadable: denies all)"


def test_a_good_version_in_a_list_that_did_not_end_was_never_in_force() -> None:
    ledger = a_ledger()
    relist(ledger, a_policy(ALLOW))
    ledger.started()
    ledger.found([a_policy(DENY)], "v1")
    assert relist(ledger, a_policy(BAD)) == {}


def test_one_batch_is_read_in_its_order() -> None:
    ledger = a_ledger()
    changed = happen(ledger, ("ADDED", a_policy(DENY)), ("MODIFIED", a_policy(BAD)))
    stands: Any = changed[REF]
    assert (stands.name, stands.action) == ("web", mesh.Action.DENY)


def test_a_list_names_no_kind_and_need_not() -> None:
    stands: Any = relist(a_ledger(kinds.POLICIES[3]), a_policy({"mtls": {"mode": "STRICT"}}))
    assert [one.mode for one in stands.values()] == [mesh.MtlsMode.STRICT]


@pytest.mark.parametrize(
    ("status", "conditions"),
    [
        ({"conditions": [{"type": "Accepted"}]}, [{"type": "Accepted"}]),
        ({"conditions": [{"type": "Accepted"}, "7"]}, [{"type": "Accepted"}]),
        ({"conditions": "none"}, []),
        ({"conditions": None}, []),
        ("none", []),
        (None, []),
    ],
    ids=str,
)
def test_an_outcome_tells_of_which_version_it_is_and_what_its_status_said(status: Any, conditions: list[Any]) -> None:
    ledger = a_ledger()
    policy = a_policy(ALLOW)
    policy["metadata"]["resourceVersion"] = "7"
    relist(ledger, {**policy, "status": status})
    (found,) = ledger.outcomes.all.values()
    assert (found.version, [*found.conditions]) == ("7", conditions)
