"""Rows for `ambient get`."""

from __future__ import annotations

import json

from ambient.model.mesh import Action, AuthorizationPolicy, MtlsMode, OutboundMode, PeerAuthentication, TrafficPolicy
from ambient.observe import views
from ambient.observe.records import Ending, Flow, Open, Party

from .worlds import a_pod, a_service, a_world

WORLD = a_world(
    a_pod("shop/web-2", "10.0.0.3", node="b", ready=False),
    a_pod("shop/web-1", "10.0.0.2", probe_ports=frozenset({9090, 8080})),
    a_pod("other/job-1", "10.0.0.4", enrolled=False),
    a_service("shop/web", "10.96.0.1"),
    a_service("shop/quiet", selector={"app": "nobody"}),
    AuthorizationPolicy(namespace="shop", name="deny", action=Action.DENY, selector={"app": "web"}),
    AuthorizationPolicy(namespace="ambient-system", name="all", dry_run=True),
    TrafficPolicy(namespace="shop", name="out", outbound=OutboundMode.REGISTRY_ONLY, require_mtls=True),
    PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT, port_modes={9090: MtlsMode.PERMISSIVE}),
)


def test_workloads_are_sorted_and_tell_identity_and_state() -> None:
    rows = views.workloads(WORLD, {"shop/web-1": "captured"}.get)  # type: ignore[arg-type]
    assert [row["name"] for row in rows] == ["job-1", "web-1", "web-2"]
    assert rows[0]["identity"] == ""
    assert rows[1] == {
        "namespace": "shop",
        "name": "web-1",
        "node": "a",
        "uid": "uid-web-1",
        "addresses": ["10.0.0.2"],
        "ready": True,
        "enrolled": True,
        "state": "captured",
        "identity": "spiffe://cluster.local/ns/shop/sa/web",
        "services": ["shop/web"],
        "probe_ports": [8080, 9090],
    }


def test_services_tell_who_is_behind_them() -> None:
    quiet, web = views.services(WORLD)
    assert (quiet["vips"], quiet["ready"]) == (["headless"], [])
    assert (web["ports"], web["ready"], web["not_ready"]) == (["80->8080"], ["shop/web-1"], ["shop/web-2"])


def test_policies_of_all_kinds_tell_whom_they_are_for_and_what_they_do() -> None:
    rows = [(row["kind"], row["name"], row["scope"], row["selector"], row["does"]) for row in views.policies(WORLD)]
    assert rows == [
        ("AuthorizationPolicy", "all", "mesh", "", "ALLOW"),
        ("AuthorizationPolicy", "deny", "workloads", "app=web", "DENY"),
        ("PeerAuthentication", "strict", "namespace", "", "STRICT 9090=PERMISSIVE"),
        ("TrafficPolicy", "out", "namespace", "", "registry-only mtls required"),
    ]


def test_connections_come_oldest_first_with_both_ends() -> None:
    flow = Flow(
        reporter="source",
        source=Party(namespace="shop", workload="client", principal="cluster.local/ns/shop/sa/client"),
        destination=Party(address="192.0.2.9"),
        rule="outside",
    )
    young = Ending(connection="2", started_ns=2_000_000_000, source="10.0.0.2:1", dialled="10.0.0.3:8080", sent=5)
    old = young._replace(connection="1", started_ns=1, dialled="")
    rows = views.connections([Open(flow, young), Open(flow, old, counted=False)])
    assert [row["connection"] for row in rows] == ["1", "2"]
    assert [row["destination_address"] for row in rows] == ["192.0.2.9", "10.0.0.3:8080"]
    assert rows[1]["source"] == "shop/client"
    assert rows[1]["destination"] == ""
    assert (rows[1]["bytes_sent"], rows[1]["bytes_received"]) == (5, 0)
    assert (rows[0]["bytes_sent"], rows[0]["bytes_received"]) == (None, None), "not known is not none"


def test_every_row_is_json_as_it_is() -> None:
    for rows in (views.workloads(WORLD, lambda _: ""), views.services(WORLD), views.policies(WORLD)):
        assert json.loads(json.dumps(rows)) == rows
