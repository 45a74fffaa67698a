"""What the kernel may do by itself: put with the decision, taken back with it, its connections ended and recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ambient.capture.abi import Kind
from ambient.capture.direct import Endpoint, Place
from ambient.dataplane import abi
from ambient.dataplane.questions import label
from ambient.dataplane.wire import Message
from ambient.model.mesh import (
    Action,
    AuthorizationPolicy,
    Match,
    Namespace,
    OutboundMode,
    Rule,
    SameNode,
)
from tests.dataplane.direct import NEAR, NEAR_IP, OUTSIDE, VIP, Node, a_near_pod, in_a_loop
from tests.dataplane.standing import Kernel
from tests.dataplane.worlds import CLIENT, CLIENT_IP, LEGACY_IP, WEB_IP, a_pod

FROM_CLIENT = Rule(clauses=((Match(principals=(CLIENT.principal,)),),))
DENY = AuthorizationPolicy(
    namespace="shop", name="no", action=Action.DENY, selector={"app": "web"}, rules=(FROM_CLIENT,)
)
CLOSED = Namespace(name="shop", enrolled=True, outbound=OutboundMode.REGISTRY_ONLY)


def test_a_service_with_a_pod_here_and_one_elsewhere_is_shared_between_kernel_and_engine(node: Node) -> None:
    answer, weights = node.asked(VIP)
    found = node.verdict()
    assert found is not None
    assert (found.number, found.kind) == (answer.answer, Kind.DIRECT)
    assert set(found.endpoints) == {
        Endpoint(NEAR_IP, 8080, 1, node.captured["shop/near"]),
        Endpoint(WEB_IP, 8080, 1, None),
    }
    assert weights == {(WEB_IP, 8080): 1, NEAR: 0}, "what the kernel does is not the engine's share too"


def test_where_all_are_here_the_engine_has_them_too_for_what_the_kernel_leaves_to_it(node: Node) -> None:
    answer, weights = node.asked(NEAR)
    found = node.verdict(NEAR)
    assert found is not None
    assert (found.number, found.endpoints) == (answer.answer, (Endpoint(NEAR_IP, 8080, 1, node.captured["shop/near"]),))
    assert weights == {NEAR: 1}


def test_without_room_in_the_kernel_the_engine_does_it_all(kernel: Kernel) -> None:
    node = Node(kernel=Kernel(most=0))
    assert node.asked(VIP)[1] == {(WEB_IP, 8080): 1, NEAR: 1}
    node.kernel.close()
    del kernel


INDIRECT: dict[str, object] = {
    "denied": DENY,
    "to be encrypted": a_near_pod(same_node=SameNode.MTLS),
    "on another node": a_near_pod(node="node-2"),
    "not in the mesh": a_near_pod(enrolled=False),
}


@pytest.mark.parametrize("change", INDIRECT.values(), ids=INDIRECT)
def test_what_may_not_be_direct_is_the_engines_as_before(kernel: Kernel, change: object) -> None:
    node = Node(change, kernel=kernel)
    assert node.asked(VIP)[1] == {(WEB_IP, 8080): 1, NEAR: 1}
    assert node.verdict() is None


def test_a_pod_that_is_not_captured_here_yet_is_direct_as_soon_as_it_is(node: Node) -> None:
    cookie = node.captured.pop("shop/near")
    first = node.dial().answer
    assert node.verdict() is None
    node.captured["shop/near"] = cookie
    node.proxy.touched(["wl:shop/near"])
    assert node.dial().answer != first
    assert node.verdict() is not None


def test_a_client_in_another_network_namespace_than_the_question_is_about_has_no_verdict(node: Node) -> None:
    node.captured["shop/client"] += 1000
    node.dial()
    assert node.verdict() is None


def test_a_service_of_more_pods_than_a_verdict_holds_is_the_engines(kernel: Kernel) -> None:
    more = [a_pod(f"web-{n}", WEB_IP + 100 + n) for n in range(16)]  # type: ignore[operator]
    node = Node(*(replace(pod, labels={"app": "web"}) for pod in more), kernel=kernel)
    assert node.dial().choices == 16
    assert node.verdict() is None


def test_what_the_mesh_does_not_know_is_passed_and_what_it_knows_is_not(node: Node) -> None:
    node.dial(OUTSIDE)
    found = node.verdict(OUTSIDE)
    assert found is not None
    assert (found.kind, found.endpoints) == (Kind.PASS, ())
    for known in ((LEGACY_IP, 80), (node.world.nodes["node-1"].addresses[0], 80)):
        node.dial(known)
        assert node.verdict(known) is None


@pytest.mark.parametrize("place", [OUTSIDE, (LEGACY_IP, 9000)], ids=["registry-only", "require-mtls"])
def test_what_a_pod_must_not_dial_is_refused_by_the_kernel_and_recorded(kernel: Kernel, place: object) -> None:
    node = Node(replace(CLOSED, require_mtls=True), kernel=kernel)
    node.dial(place)  # type: ignore[arg-type]
    with pytest.raises(PermissionError):
        node.connect(place)  # type: ignore[arg-type]
    node.ways.ended.read()
    ((flow, ending),) = node.records.direct
    assert (flow.reporter, flow.verdict, flow.path) == ("source", "deny", "none")
    assert flow.reason == ("not_in_registry" if place == OUTSIDE else "mtls_required")
    assert (ending.reason, ending.dialled, ending.setup_ns) == ("refused", "", 0)


def test_an_unknown_address_that_becomes_known_is_passed_no_more_at_once(node: Node) -> None:
    node.dial(OUTSIDE)
    node.kernel.said.clear()
    node.change(a_pod("late", OUTSIDE[0]))
    assert node.verdict(OUTSIDE) is None
    assert node.kernel.said == ["delete"]


@in_a_loop
async def test_an_endpoint_that_goes_keeps_its_connections_until_it_would_not_let_them_in(node: Node) -> None:
    node.dial()
    node.connect(endpoint=NEAR)
    node.change(a_near_pod(ready=False))
    await node.settled()
    assert node.verdict() is None, "only the other node's pod is left, which is the engine's"
    assert len(node.kernel.live) == 1
    node.change(DENY)
    await node.settled()
    assert node.kernel.live == [], "though it is no endpoint of anything any more"


@in_a_loop
async def test_a_wish_for_encryption_ends_what_is_not_encrypted(node: Node) -> None:
    node.dial(NEAR)
    node.connect(NEAR)
    node.change(a_near_pod(same_node=SameNode.MTLS))
    await node.settled()
    assert node.kernel.live == []
    assert node.records.direct[0][0].reason == "same_node_mtls"


@in_a_loop
async def test_who_leaves_the_mesh_keeps_its_connections(node: Node) -> None:
    node.dial(NEAR)
    node.connect(NEAR)
    node.change(a_near_pod(enrolled=False))
    await node.settled()
    assert node.verdict(NEAR) is None
    assert len(node.kernel.live) == 1


@in_a_loop
async def test_a_pod_that_another_took_the_place_of_is_another(node: Node) -> None:
    node.dial(NEAR)
    node.connect(NEAR)
    node.change(replace(a_near_pod(), uid="another"))
    await node.settled()
    assert node.kernel.live == []


@in_a_loop
async def test_registry_only_ends_what_was_passed(node: Node) -> None:
    node.dial(OUTSIDE)
    node.connect(OUTSIDE)
    node.change(CLOSED)
    await node.settled()
    assert node.kernel.live == []
    assert node.records.direct[0][0].reason == "not_in_registry"


@in_a_loop
async def test_verdicts_hold_for_as_long_again_whenever_the_agent_stands_by_them(node: Node) -> None:
    await node.ways.stand_by()
    assert node.kernel.lease == 60.0


def test_where_nothing_could_be_ended_the_engine_does_it_all(kernel: Kernel) -> None:
    node = Node(kernel=kernel, unfit="tcp_diag is missing")
    assert node.asked(VIP)[1] == {(WEB_IP, 8080): 1, NEAR: 1}
    node.dial(OUTSIDE)
    assert kernel.verdicts == {}
    said = node.ways.in_the_way("shop/client", "shop/near")
    assert said == "a direct connection could not be ended here: tcp_diag is missing"


def test_an_unchanged_decision_asks_the_kernel_nothing(node: Node) -> None:
    node.dial()
    node.kernel.said.clear()
    node.change(AuthorizationPolicy(namespace="shop", name="else", action=Action.DENY, selector={"app": "else"}))
    assert node.kernel.said == []
    assert node.verdict() is not None


@in_a_loop
async def test_an_agent_that_leaves_writes_what_has_ended_and_one_without_a_world_leaves_it_to_the_next(
    node: Node,
) -> None:
    node.dial()
    node.kernel.end(node.connect(endpoint=NEAR))
    node.ways.ended.drain()
    assert node.records.direct == []
    await node.ways.take_over()
    node.ways.ended.drain()
    assert len(node.records.direct) == 1
    asyncio.get_running_loop().remove_reader(node.kernel.fileno())


async def next_agent(kernel: Kernel, *more: object) -> Node:
    node = Node(*more, kernel=kernel, first_id=1000)
    await node.ways.void()
    node.proxy.inherit([])
    await node.ways.take_over()
    node.proxy.judge_all()
    await node.settled()
    return node


@in_a_loop
async def test_the_next_agent_keeps_what_is_allowed_and_ends_what_is_not(node: Node) -> None:
    node.dial()
    node.dial(OUTSIDE)
    kept, doomed = node.connect(endpoint=NEAR), node.connect(OUTSIDE)
    after = await next_agent(node.kernel, CLOSED)
    assert (kept in after.kernel.live, doomed in after.kernel.live) == (True, False)
    assert after.kernel.verdicts == {}, "connections miss once, and are decided anew"
    ((flow, _),) = after.records.direct
    assert (flow.verdict, flow.reason, flow.source.workload) == ("deny", "not_in_registry", "client")
    after.change(DENY)
    await after.settled()
    assert after.kernel.live == []
    assert after.records.direct[-1][0].reason == "denied_by_policy"


@in_a_loop
async def test_the_next_agent_writes_the_records_that_the_dead_one_left(node: Node) -> None:
    node.dial()
    node.kernel.end(node.connect(endpoint=NEAR), sent=7)
    after = await next_agent(node.kernel)
    ((flow, ending),) = after.records.direct
    assert (flow.source.workload, flow.destination.workload, flow.path, flow.rule) == (
        "client",
        "near",
        "direct",
        "no policy",
    )
    assert (flow.source.principal, ending.sent) == (CLIENT.principal, 7)


@in_a_loop
async def test_what_the_engine_says_of_a_decision_is_not_said_of_what_went_past_it(node: Node) -> None:
    """It remembers the same decision, by its label, for what it carried itself."""
    node.dial()
    flow = node.connect(endpoint=NEAR)
    node.kernel.end(flow)
    after = Node(kernel=node.kernel, first_id=1000)
    await after.ways.take_over()
    known = node.proxy.decisions.get(flow.number)
    assert known is not None
    after.proxy.decisions.inherit(flow.number, known.question, known.flow)
    await after.settled()
    ((seen, _),) = after.records.direct
    assert (known.flow.path, known.flow.reporter) == ("tunnel", "source")
    assert (seen.path, seen.reporter, seen.destination.workload) == ("direct", "destination", "near")


@in_a_loop
async def test_what_is_denied_ends_in_the_kernel_too_where_an_engine_has_the_same_decision(node: Node) -> None:
    """Which was judged, and cut in the engine, before the kernel's connections had names."""
    answer = node.dial(OUTSIDE)
    node.connect(OUTSIDE)
    decision = node.proxy.decisions.get(answer.answer)
    assert decision is not None
    assert decision.question is not None
    text = label(decision.question, decision.flow)
    after = Node(CLOSED, kernel=node.kernel, first_id=1000)
    row = abi.AnswerRow(answer=answer.answer, label_len=len(text))
    after.proxy.inherit([Message(abi.Type.ROW_ANSWER, row, text)])
    assert [message.type for message in after.link.sent] == [abi.Type.CUT]
    await after.ways.take_over()
    after.proxy.judge_all()
    await after.settled()
    assert after.kernel.live == []
    ((flow, _),) = after.records.direct
    assert (flow.verdict, flow.reason) == ("deny", "not_in_registry")


@in_a_loop
async def test_a_connection_of_a_pod_that_nobody_knows_any_more_is_ended(node: Node) -> None:
    node.dial(NEAR)
    node.connect(NEAR)
    after = await next_agent(node.kernel, a_near_pod(enrolled=False))
    assert after.kernel.live == []


@in_a_loop
async def test_a_decision_is_dropped_when_the_last_record_under_it_is_written(node: Node) -> None:
    await node.ways.take_over()
    node.dial()
    flow = node.connect(endpoint=NEAR)
    node.change(a_near_pod(ready=False))
    node.proxy.decisions.drop_unused(node.proxy.decisions.out_of_force(), await node.ways.numbers())
    assert node.proxy.decisions.get(flow.number) is not None
    node.kernel.end(flow)
    numbers = await node.ways.numbers()
    assert (numbers, len(node.records.direct)) == (frozenset(), 1)
    node.proxy.decisions.drop_unused(node.proxy.decisions.out_of_force(), numbers)
    assert node.proxy.decisions.get(flow.number) is None
    asyncio.get_running_loop().remove_reader(node.kernel.fileno())


@in_a_loop
async def test_what_is_not_listed_any_more_is_recorded(node: Node) -> None:
    await node.ways.take_over()
    node.dial()
    node.kernel.end(node.connect(endpoint=NEAR))
    assert await node.ways.live() == []
    assert len(node.records.direct) == 1
    asyncio.get_running_loop().remove_reader(node.kernel.fileno())


@in_a_loop
async def test_what_is_alive_is_told_with_its_decision(node: Node) -> None:
    node.dial()
    flow = node.connect(endpoint=NEAR)
    ((seen, ending),) = await node.ways.live()
    assert (seen.path, ending.reason, ending.source) == ("direct", "open", "10.1.0.1:40001")
    assert await node.ways.numbers() == {flow.number}
    assert (flow.source, flow.destination) in await node.ways.admitted()
    node.kernel.end(flow)
    node.ways.ended.read()
    assert (flow.source, flow.destination) in await node.ways.admitted(), "its server may not have closed yet"


@pytest.mark.parametrize(
    "first",
    [
        replace(a_pod("client", CLIENT_IP), enrolled=False),
        a_pod("thief", NEAR_IP),
    ],
    ids=["the client left the mesh", "another has the server's address, too"],
)
@in_a_loop
async def test_what_only_stands_in_the_way_of_new_ones_hides_no_denial(node: Node, first: object) -> None:
    node.dial(VIP)
    node.connect(VIP, endpoint=NEAR)
    node.change(first)
    await node.settled()
    assert len(node.kernel.live) == 1
    node.change(DENY)
    await node.settled()
    assert node.kernel.live == []
    assert node.records.direct[0][0].reason in ("denied_by_policy", "source_mismatch", "unknown_source")


@pytest.mark.parametrize("place", [NEAR, VIP], ids=["a pod", "a Service with another pod"])
@in_a_loop
async def test_who_requires_mutual_tls_keeps_no_connection_to_who_leaves_the_mesh(kernel: Kernel, place: Place) -> None:
    node = Node(Namespace(name="shop", enrolled=True, require_mtls=True), kernel=kernel)
    node.dial(place)
    node.connect(place, endpoint=NEAR)
    node.change(a_near_pod(enrolled=False))
    await node.settled()
    assert node.kernel.live == []
    assert node.records.direct[0][0].reason == "mtls_required"
