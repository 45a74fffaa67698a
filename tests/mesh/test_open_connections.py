"""A change of policy or of a workload judges open connections again: cut within a second, and the record says why."""

from __future__ import annotations

import time

import pytest

from tests import slowness
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import Manifest, mtls, pod, policy, principal, server, shop

pytestmark = pytest.mark.kernel

MANIFESTS = shop()
WITHIN_S = slowness.seconds(1.0)
DENY_CLIENT = policy(
    "no-more", "DENY", app="web", rules=[{"from": [{"source": {"principals": [principal("client")]}}]}]
)


def cut_after(mesh: Mesh, who: str, name: str, change: list[Manifest]) -> float:
    """Seconds from the moment the change is published (not converged: that comes later) to the end of a connection."""
    began = time.monotonic()
    mesh.publish(change)
    end = mesh.puppet(who).do("ended", name=name, timeout=5)
    took = time.monotonic() - began
    assert end.how in ("reset", "closed"), end
    mesh.puppet(who).do("close", name=name)
    return took


def test_a_new_denial_cuts_the_open_connection_and_only_that(mesh: Mesh) -> None:
    client, near = mesh.puppet("shop/client"), mesh.puppet("shop/near")
    for each in (client, near):
        each.open("talk", "web", family=4)
        assert each.say("talk", "echo before").reply == "before"
    try:
        assert cut_after(mesh, "shop/client", "talk", [DENY_CLIENT]) < WITHIN_S
        row = mesh.record("destination", source_pod="client")
        assert (row["end"], row["verdict"], row["response_flags"]) == ("cut", "deny", "DENY")
        assert "AuthorizationPolicy shop/no-more rule 0" in row["rule"]
        assert row["bytes_sent"] == len("echo before\n")
        mesh.record("source", source_pod="client", trace_id=row["trace_id"])
        assert near.say("talk", "echo still").reply == "still"
        near.do("close", name="talk")
    finally:
        mesh.delete(DENY_CLIENT)
    assert client.ask("web").error == ""


def test_a_change_that_allows_keeps_the_open_connection(mesh: Mesh) -> None:
    allow = policy("all-of-shop", app="web", rules=[{"from": [{"source": {"namespaces": ["shop"]}}]}])
    client = mesh.puppet("shop/client")
    client.open("kept", "web")
    assert client.say("kept", "echo before").reply == "before"
    with mesh.having(allow):
        assert client.say("kept", "echo allowed").reply == "allowed"
    assert client.say("kept", "echo after").reply == "after"
    kept = client.do("names", name="kept").local
    client.do("close", name="kept")
    row = mesh.record("source", source_address=kept)
    assert mesh.record("destination", trace_id=row["trace_id"])["end"] == "closed"


def test_strict_cuts_who_came_in_the_clear(mesh: Mesh) -> None:
    stranger = mesh.puppet("outside/stranger")
    stranger.open("plain", mesh.ip("shop/web"), 8080)
    assert stranger.say("plain", "echo before").reply == "before"
    try:
        assert cut_after(mesh, "outside/stranger", "plain", [mtls("STRICT")]) < WITHIN_S
        row = mesh.record("destination")
        assert (row["end"], row["verdict"], row["reason"]) == ("cut", "deny", "strict_mtls")
    finally:
        mesh.delete(mtls("STRICT"))


def test_a_label_that_brings_a_pod_under_a_policy_cuts(mesh: Mesh) -> None:
    """A change of the workload, not of the policy."""
    client = mesh.puppet("shop/client")
    with mesh.having(policy("only-closed", app="closed")):
        client.open("talk", mesh.ip("shop/web"), 8080)
        assert client.say("talk", "echo before").reply == "before"
        began = time.monotonic()
        mesh.label("pod/shop/web", "app=closed")
        assert client.do("ended", name="talk", timeout=5).how in ("reset", "closed")
        assert time.monotonic() - began < WITHIN_S
        client.do("close", name="talk")
        assert mesh.record("destination")["reason"] == "no_allow_matched"
        mesh.label("pod/shop/web", "app=web")


def test_a_client_that_is_replaced_takes_its_rights_with_it(mesh: Mesh) -> None:
    """A pod goes while its connection is open: the other side's record is complete."""
    mesh.apply(pod("brief", "node1"))
    mesh.learn()
    mesh.puppet("shop/brief").open("talk", "web")
    assert mesh.puppet("shop/brief").say("talk", "echo hello").reply == "hello"
    mesh.dismiss("shop/brief")
    mesh.delete(pod("brief", "node1"))
    mesh.learn()
    row = mesh.record("destination", source_pod="brief")
    assert row["bytes_sent"] == len("echo hello\n")
    mesh.record("source", source_pod="brief", trace_id=row["trace_id"])


def test_a_server_that_goes_ends_its_connections_and_another_takes_over(mesh: Mesh) -> None:
    more = server("web2", "node1", labels={"app": "web"})
    mesh.apply(more)
    mesh.learn()
    client = mesh.puppet("shop/client")
    names: dict[str, str] = {}
    for number in range(60):
        client.open(f"c{number}", "web", family=4)
        names.setdefault(client.say(f"c{number}", "who").who["pod"], f"c{number}")
        if len(names) == 2:
            break
    assert set(names) == {"web", "web2"}, "both endpoints are used"
    mesh.delete(more)
    mesh.learn()
    assert client.do("ended", name=names["web2"], timeout=5).how in ("reset", "closed")
    assert client.say(names["web"], "echo still").reply == "still"
    assert {client.ask("web", family=4).who["pod"] for _ in range(5)} == {"web"}
    for name in names.values():
        client.do("close", name=name)
