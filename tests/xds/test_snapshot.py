"""The next snapshot is what a new one would be, and costs what changed: every encoding is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model import mesh
from ambient.model.world import World
from ambient.xds import names, snapshot
from ambient.xds.resources import make
from ambient.xds.snapshot import Snapshot
from tests.model.builders import ROOT, a_node, a_peer_authentication, a_pod, a_policy, a_rule, a_service, a_world

from .worlds import STEPS, WORLDS, step


@settings(max_examples=100, deadline=None)
@given(WORLDS, st.lists(STEPS, min_size=1, max_size=4), st.booleans())
def test_advancing_gives_what_starting_anew_gives(world: World, steps: list[Any], known: bool) -> None:
    now = Snapshot.of(world)
    for number, change in enumerate(steps):
        before = {url: dict(now.table(url)) for url in names.TYPES}
        world = step(world, change, f"r{number}")
        # `known`: how it was made from the last one is known; otherwise all is compared
        now, changed = now.advance(world if known else rebuilt(world))
        anew = Snapshot.of(world)
        for url in names.TYPES:
            assert now.table(url) == anew.table(url)
            differs = {
                name
                for name in before[url].keys() | now.table(url).keys()
                if before[url].get(name) != now.table(url).get(name)
            }
            assert changed.get(url, frozenset()) == differs


def rebuilt(world: World) -> World:
    nouns = [
        noun
        for table in (
            world.nodes,
            world.namespaces,
            world.workloads,
            world.services,
            world.policies,
            world.peer_authentications,
            world.traffic_policies,
        )
        for noun in table.values()
    ]
    return World(mesh=world.mesh).replace(nouns, revision=world.revision)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was encoded."""
    found: list[str] = []

    def counted(type_url: str, name: str, *rest: Any) -> Any:
        found.append(name.removeprefix("Kubernetes//").removesuffix(".svc.cluster.local"))
        return make(type_url, name, *rest)

    monkeypatch.setattr(snapshot, "make", counted)
    return found


WEB = [a_pod(f"shop/web-{n}", f"10.1.0.{n}", labels={"app": "web"}) for n in (1, 2)]
API = a_pod("shop/api-1", "10.1.0.3", labels={"app": "api"})
OTHER = a_pod("back/web-1", "10.1.0.4", labels={"app": "web"})
SERVICE = a_service("shop/web", "10.96.0.1")
TO_WEB = {"selector": {"app": "web"}}
WEB_POLICY = a_policy("shop/web", **TO_WEB)
MODE = a_peer_authentication("shop/web", **TO_WEB, port_modes={80: mesh.MtlsMode.DISABLE})
WORLD = a_world(
    *WEB,
    API,
    OTHER,
    SERVICE,
    a_node("n1"),
    mesh.Namespace(name="shop"),
    a_policy("shop/all"),
    WEB_POLICY,
    a_policy(f"{ROOT}/web", **TO_WEB),
    MODE,
)
PORTS = a_service("shop/web", "10.96.0.1", target=9)
STRICT = a_peer_authentication("shop/all", "STRICT")
WEBS, DERIVED = ["Pod/shop/web-1", "Pod/shop/web-2"], "shop/converted_peer_authentication_web"

COSTS: dict[str, tuple[list[Any], list[Any], list[str]]] = {
    "a pod turns unready": ([replace(API, ready=False)], [], ["Pod/shop/api-1"]),
    "a pod behind a Service turns unready": ([replace(WEB[0], ready=False)], [], WEBS[:1]),
    "a pod comes": ([a_pod("shop/new", labels={"app": "web"})], [], ["Pod/shop/new"]),
    "a pod goes": ([], [(mesh.Workload, "shop/web-1")], []),
    "a Service's address": ([replace(SERVICE, vips=())], [], ["shop/web.shop"]),
    "a Service's ports": ([PORTS], [], ["shop/web.shop", *WEBS]),
    "a Service selects others": (
        [replace(SERVICE, selector={"app": "api"})],
        [],
        ["shop/web.shop", "Pod/shop/api-1", *WEBS],
    ),
    "a Service goes": ([], [(mesh.Service, "shop/web")], WEBS),
    "a node": ([a_node("n1", "10.0.0.1")], [], ["node/n1"]),
    "a namespace": ([mesh.Namespace(name="shop", require_mtls=True)], [], ["namespace/shop"]),
    "a policy's rules": ([replace(WEB_POLICY, rules=(a_rule(),))], [], ["shop/web"]),
    "a namespace policy comes": ([a_policy("shop/new")], [], ["shop/new"]),
    "a policy selects others": (
        [replace(WEB_POLICY, selector={"app": "api"})],
        [],
        ["shop/web", "Pod/shop/api-1", *WEBS],
    ),
    "a selector policy goes": ([], [(mesh.AuthorizationPolicy, "shop/web")], WEBS),
    "a policy becomes a waypoint's": (
        [replace(WEB_POLICY, targets=("Gateway/w",))],
        [],
        ["authorization-policy/shop/web", *WEBS],
    ),
    "a root policy goes": ([], [(mesh.AuthorizationPolicy, f"{ROOT}/web")], ["Pod/back/web-1", *WEBS]),
    "a selector's mode": (
        [replace(MODE, mode=mesh.MtlsMode.STRICT)],
        [],
        ["peer-authentication/shop/web", DERIVED, *WEBS],
    ),
    "a namespace turns strict": (
        [STRICT],
        [],
        ["peer-authentication/shop/all", "peer-authentication/shop/web", DERIVED, "Pod/shop/api-1", *WEBS],
    ),
    "a namespace says what holds anyway": (
        [a_peer_authentication("shop/all", "PERMISSIVE")],
        [],
        ["peer-authentication/shop/all"],
    ),
    "the mesh turns strict": (
        [a_peer_authentication(f"{ROOT}/all", "STRICT")],
        [],
        [
            f"peer-authentication/{ROOT}/all",
            "peer-authentication/shop/web",
            DERIVED,
            "Pod/shop/api-1",
            "Pod/back/web-1",
            *WEBS,
        ],
    ),
    "nothing": ([API, SERVICE], [], []),
}


@pytest.mark.parametrize(("upserts", "removals", "expected"), COSTS.values(), ids=COSTS.keys())
def test_a_change_encodes_what_it_concerns_and_nothing_else(
    upserts: list[Any], removals: list[Any], expected: list[str], encoded: list[str]
) -> None:
    now = Snapshot.of(WORLD)
    encoded.clear()
    now.advance(WORLD.replace(upserts, removals, revision="2"))
    assert sorted(encoded) == sorted(expected)


def test_what_did_not_change_is_shared_with_the_next_snapshot() -> None:
    now = Snapshot.of(WORLD)
    after, changed = now.advance(WORLD.replace([replace(API, ready=False)], revision="2"))
    assert changed == {names.ADDRESS: {names.of_workload("shop/api-1")}}
    assert after.table(names.AUTHORIZATION) is now.table(names.AUTHORIZATION)
    name = names.of_workload("shop/web-1")
    assert after.table(names.ADDRESS)[name] is now.table(names.ADDRESS)[name]
    assert after.revision == "2"


def test_roots_are_a_resource_that_stays_until_others_come() -> None:
    now, _ = Snapshot.of(WORLD).advance(WORLD, b"ONE")
    same, changed = now.advance(WORLD.replace(revision="2"))
    assert (same.roots, changed) == (b"ONE", {})
    both, changed = same.advance(WORLD, b"ONE TWO")
    assert changed == {names.NOUN: {names.ROOTS}}
    assert both.table(names.NOUN)[names.ROOTS] != now.table(names.NOUN)[names.ROOTS]
    assert names.ROOTS not in Snapshot.of(WORLD).table(names.NOUN)


def test_another_root_namespace_moves_the_static_policy() -> None:
    now, changed = Snapshot.of(WORLD).advance(WORLD.replace(revision="2", mesh=mesh.MeshConfig(root_namespace="shop")))
    assert {f"{ROOT}/{names.DERIVED_STRICT}", f"shop/{names.DERIVED_STRICT}"} <= changed[names.AUTHORIZATION]
    assert f"{ROOT}/{names.DERIVED_STRICT}" not in now.table(names.AUTHORIZATION)
