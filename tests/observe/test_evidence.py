"""What an agent testifies about a namespace."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ambient.model.mesh import CaptureSettings, MtlsMode, PeerAuthentication, SameNode, Workload, address
from ambient.model.world import World
from ambient.observe.evidence import NOBODYS_PORT, Seen, Witness, evidence, port_to_try

from .worlds import a_pod, a_service, a_world

STRICT = PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT)
WEB = a_pod("shop/web-1", "10.0.0.2")
CLIENT = a_pod("shop/client-1", "10.0.1.2", node="b")


SEEN = {WEB.key: Seen(state="captured", certificate=None)}


def asked(world: World, **more: Any) -> Any:
    return json.loads(json.dumps(evidence(world, "shop", Witness(node="a", **({"seen": SEEN} | more)))))


def test_the_agents_own_pods_are_described_and_the_others_named_by_node() -> None:
    world = a_world(WEB, CLIENT, a_pod("other/job-1", "10.0.0.9"))
    said = asked(world, seen={"shop/web-1": Seen(state="captured", certificate={"state": "valid"})})
    (web,) = said["pods"]
    assert (web["pod"], web["state"], web["knocks"], web["clear"]) == ("shop/web-1", "captured", [], [])
    assert web["certificate"] == {"state": "valid"}
    assert said["elsewhere"] == {"b": ["shop/client-1"]}


def test_a_namespace_nobody_knows_is_said_to_be_unknown() -> None:
    assert asked(a_world(WEB))["known"]
    assert not evidence(a_world(), "shpo", Witness(node="a"))["known"]


def test_modes_name_the_resource_and_the_ports_that_differ() -> None:
    own = PeerAuthentication(
        namespace="shop", name="web", selector={"app": "web"}, port_modes={9090: MtlsMode.PERMISSIVE}
    )
    (pod,) = asked(a_world(WEB, STRICT, own))["pods"]
    assert pod["modes"] == [
        {"port": 0, "mode": "STRICT", "said_by": "PeerAuthentication shop/strict"},
        {"port": 9090, "mode": "PERMISSIVE", "said_by": "PeerAuthentication shop/web port 9090"},
    ]


@pytest.mark.parametrize(
    ("pod", "more", "port"),
    [
        pytest.param(WEB, [STRICT, a_service("shop/web", "10.96.0.1")], 8080, id="a Service's port"),
        pytest.param(a_pod("shop/web-1", "10.0.0.2", ports={"metrics": 9090}), [STRICT], 9090, id="a named port"),
        pytest.param(WEB, [STRICT], NOBODYS_PORT, id="no port is known"),
        pytest.param(
            a_pod("shop/web-1", "10.0.0.2", probe_ports=frozenset({8080})),
            [STRICT, a_service("shop/web", "10.96.0.1")],
            NOBODYS_PORT,
            id="its only port is probed",
        ),
        pytest.param(
            a_pod("shop/web-1", "10.0.0.2", capture=CaptureSettings(exclude_inbound_ports=frozenset({8080}))),
            [STRICT, a_service("shop/web", "10.96.0.1")],
            NOBODYS_PORT,
            id="its only port is excluded",
        ),
        pytest.param(WEB, [], None, id="plaintext may come in: nothing is tried"),
        pytest.param(a_pod("shop/web-1", "10.0.0.2", enrolled=False), [STRICT], None, id="not enrolled"),
    ],
)
def test_plaintext_is_tried_only_where_it_must_be_refused(pod: Workload, more: list[Any], port: int | None) -> None:
    assert port_to_try(a_world(pod, *more), pod) == port


@pytest.mark.parametrize(
    ("seen", "kind", "peer"),
    [
        ((False, 40000, address("10.0.1.2"), 8080), "mesh", "shop/client-1 10.0.1.2:8080"),
        ((False, 40000, address("198.51.100.7"), 443), "outside", "198.51.100.7:443"),
        ((True, 8080, address("192.0.2.1"), 40000), "probe", "Node a 192.0.2.1:40000"),
        ((True, 8080, address("10.0.0.1"), 40000), "probe", "10.0.0.1:40000"),
        ((True, 9090, address("192.0.2.1"), 40000), "outside", "Node a 192.0.2.1:40000"),
        ((True, 8080, address("198.51.100.7"), 40000), "outside", "198.51.100.7:40000"),
        ((True, 8080, address("192.0.2.2"), 40000), "outside", "Node b 192.0.2.2:40000"),
    ],
    ids=[
        "of the mesh",
        "unknown",
        "its node's probe",
        "a gateway's probe",
        "its node, not a probe",
        "not its node",
        "another node",
    ],
)
def test_connections_in_the_clear_are_told_apart(seen: Any, kind: str, peer: str) -> None:
    web = a_pod("shop/web-1", "10.0.0.2", probe_ports=frozenset({8080}))
    host = frozenset({address("10.0.0.1")})
    said = asked(
        a_world(web, CLIENT), host=host, seen={web.key: Seen(state="captured", certificate=None, clear=(seen,))}
    )
    row = said["pods"][0]["clear"][0]
    assert (row["kind"], row["peer"]) == (kind, peer)
    assert row["port"] == (seen[1] if seen[0] else seen[3])


def test_a_connection_to_the_apps_port_came_in_though_nobody_listens_there_any_more() -> None:
    outside = (False, 8080, address("192.0.2.9"), 40_000)
    seen = {WEB.key: Seen(state="captured", certificate=None, clear=(outside,))}
    (pod,) = asked(a_world(WEB, a_service("shop/web", "10.96.0.1")), seen=seen)["pods"]
    assert pod["clear"] == [{"direction": "in", "port": 8080, "peer": "192.0.2.9:40000", "kind": "outside"}]


def test_a_connection_that_the_kernel_vouches_for_is_direct_and_another_is_not() -> None:
    first, second = (True, 8080, address("10.0.1.2"), 40000), (True, 8080, address("10.0.1.2"), 40001)
    seen = Seen(state="captured", certificate=None, clear=(first, second), direct=frozenset({first}))
    (pod,) = asked(a_world(WEB, CLIENT), seen={WEB.key: seen})["pods"]
    assert [row["kind"] for row in pod["clear"]] == ["direct", "mesh"]


@pytest.mark.parametrize("wish", SameNode)
def test_whether_a_pod_may_be_dialled_directly_is_said(wish: SameNode) -> None:
    (pod,) = asked(a_world(replace(WEB, same_node=wish)))["pods"]
    assert pod["same_node"] == wish.value
