"""plan(): what a change touches, and the promises that every plan keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model import mesh, route
from ambient.model.mesh import Locality, OutboundMode, TrafficDistribution
from ambient.model.world import World, diff

from .builders import IP, a_node, a_peer_authentication, a_pod, a_service, a_world
from .routes import (
    BOTH_WAYS,
    CLIENT,
    EVERYWHERE,
    FAR,
    HTTP,
    NEAR,
    NODE,
    REGION,
    REQUIRED,
    SERVICE,
    STRICT,
    VIP,
    WAITING,
    WEB,
    ZONE,
    ask,
)


@pytest.mark.parametrize(
    ("to", "port", "noun"),
    [
        (VIP, 80, replace(NEAR, enrolled=False)),
        (VIP, 80, replace(NEAR, labels={})),
        (VIP, 80, a_pod("shop/new", "10.1.0.50", labels=WEB, ports=HTTP)),
        (VIP, 80, replace(SERVICE, vips=())),
        (VIP, 80, a_service("x/y", VIP)),
        (VIP, 80, REQUIRED),
        (VIP, 80, replace(CLIENT, locality=Locality())),
        ("10.1.0.1", 80, replace(NEAR, enrolled=False)),
        ("10.1.0.1", 80, replace(NEAR, addresses=())),
        ("10.9.9.9", 80, a_pod("x/y", "10.9.9.9")),
        ("10.9.9.9", 80, a_service("x/y", "10.9.9.9")),
        ("10.9.9.9", 80, mesh.Namespace(name="front", outbound=OutboundMode.REGISTRY_ONLY)),
        ("10.0.0.1", 80, a_node("n1")),
        ("10.9.9.9", 80, a_node("n9", pods=("10.9.9.0/24",))),
        ("10.77.0.9", 80, a_node("roomy")),
    ],
)
def test_whatever_could_change_the_plan_touches_it(to: str, port: int, noun: Any) -> None:
    world = a_world(*EVERYWHERE, a_node("roomy", pods=("10.77.0.0/24",)))
    plan = route.plan(world, CLIENT, IP(to), port)
    assert diff(world, world.replace([noun], revision="2")).touched() & plan.deps


@BOTH_WAYS
@pytest.mark.parametrize("namespace", ["shop", mesh.MeshConfig().root_namespace])
def test_a_peer_authentication_touches_plans_to_pods_that_wait_for_capture(to: str, port: int, namespace: str) -> None:
    world = a_world(CLIENT, SERVICE, WAITING)
    plan = route.plan(world, CLIENT, IP(to), port)
    strict = a_peer_authentication(f"{namespace}/strict", "STRICT")
    assert diff(world, world.replace([strict], revision="2")).touched() & plan.deps
    captured = world.replace([NEAR], revision="2")
    assert diff(world, captured).touched() & plan.deps
    later = route.plan(captured, CLIENT, IP(to), port)
    assert not diff(captured, captured.replace([strict], revision="3")).touched() & later.deps


def test_what_does_not_concern_the_plan_does_not_touch_it() -> None:
    world = a_world(*EVERYWHERE)
    plan = route.plan(world, CLIENT, IP(VIP), 80)
    others = [a_pod("x/y", "10.1.0.77"), a_service("x/y", "10.96.0.7"), mesh.Namespace(name="x"), a_node("n9")]
    assert not diff(world, world.replace(others, revision="2")).touched() & plan.deps


TARGETS = st.sampled_from([VIP, "10.1.0.1", "10.1.0.4", "10.0.0.1", "9.9.9.9", "10.1.0.9", "fd00::1"])
PODS = st.lists(
    st.sampled_from([NEAR, ZONE, REGION, FAR]).flatmap(
        lambda pod: st.builds(
            lambda **more: replace(pod, **more),
            ready=st.booleans(),
            draining=st.booleans(),
            enrolled=st.booleans(),
            captured=st.booleans(),
            ports=st.sampled_from([{}, HTTP]),
        )
    ),
    max_size=4,
    unique_by=lambda pod: pod.key,
)


@settings(max_examples=200, deadline=None)
@given(
    pods=PODS,
    distribution=st.sampled_from(TrafficDistribution),
    local=st.booleans(),
    required=st.booleans(),
    strict=st.booleans(),
    to=TARGETS,
    port=st.sampled_from([80, 8080]),
    avoid=st.sets(st.sampled_from([(IP(f"10.1.0.{n}"), 8080) for n in range(1, 5)])),
)
def test_every_question_has_a_plan_that_keeps_the_promises(
    pods: list[mesh.Workload],
    distribution: TrafficDistribution,
    local: bool,
    required: bool,
    strict: bool,
    to: str,
    port: int,
    avoid: set[tuple[mesh.IPAddress, int]],
) -> None:
    service = replace(SERVICE, distribution=distribution, local_only=local)
    namespace = mesh.Namespace(name="front", require_mtls=required)
    world: World = a_world(CLIENT, NODE, service, namespace, *pods, *([STRICT] if strict else []))
    plan = route.plan(world, CLIENT, IP(to), port, avoid=avoid)
    assert plan.why
    assert {"mesh", "wl:front/cart", "ns:front", f"ip:{to}"} <= plan.deps
    if isinstance(plan, route.Carry):
        assert any(choice.weight for choice in plan.choices)
        assert len({(c.address, c.port) for c in plan.choices}) == len(plan.choices)
        for choice in plan.choices:
            assert (choice.identity is not None) is (choice.workload.enrolled and choice.workload.captured)
            assert choice.identity or not required
            assert choice.identity or not choice.workload.enrolled or not strict
            assert choice.address in choice.workload.addresses
            if plan.service:
                eligible = [pod for pod in pods if not local or pod.node == CLIENT.node]
                assert choice.workload.ready or choice.workload.draining
                assert choice.workload.ready or not any(pod.ready and pod.ports for pod in eligible)
                assert not local or choice.workload.node == CLIENT.node
        good = [c for c in plan.choices if (c.address, c.port) not in avoid]
        assert not good or all((c.address, c.port) not in avoid for c in plan.choices if c.weight)


def test_a_refusal_counts_pods_and_not_their_addresses() -> None:
    plan = ask(replace(SERVICE, local_only=True), replace(ZONE, addresses=(*ZONE.addresses, IP("fd00::9"))))
    assert plan.why.endswith("has no ready endpoint on node n1 (1 known)")
