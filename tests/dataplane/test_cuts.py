"""Connections past the engine that are denied now: looked for, ended, and looked for again, or told of."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from ambient.capture.errors import CaptureError
from ambient.dataplane import ways
from ambient.model.mesh import Action, AuthorizationPolicy, Match, Rule
from tests.dataplane.direct import NEAR, VIP, Node, in_a_loop
from tests.dataplane.worlds import CLIENT, CLIENT_IP, LEGACY_IP

FROM_CLIENT = Rule(clauses=((Match(principals=(CLIENT.principal,)),),))
DENY = AuthorizationPolicy(
    namespace="shop", name="no", action=Action.DENY, selector={"app": "web"}, rules=(FROM_CLIENT,)
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "AGAIN_S", 0.0)


@in_a_loop
async def test_a_denial_takes_the_verdict_back_then_lists_then_ends_what_it_denies(node: Node) -> None:
    node.dial()
    doomed, spared = node.connect(endpoint=NEAR), node.kernel.connect(99, (LEGACY_IP, 1), VIP)
    assert spared is None
    node.kernel.said.clear()
    node.change(DENY)
    assert node.kernel.said == ["delete"], "before anything else"
    await node.settled()
    assert node.kernel.said == ["delete", "flows", "destroy 1", "flows", "destroy 0"], "and looks again"
    assert doomed not in node.kernel.live
    ((flow, ending),) = node.records.direct
    assert (flow.verdict, flow.reason) == ("deny", "denied_by_policy")
    assert flow.rule == f"AuthorizationPolicy shop/no rule 0 denies {CLIENT} on port 8080"
    assert (flow.path, ending.reason) == ("direct", "cut")


@in_a_loop
async def test_what_cannot_be_ended_is_tried_again(node: Node) -> None:
    node.dial()
    node.connect(endpoint=NEAR)
    node.kernel.fails = 2
    node.change(DENY)
    await node.settled()
    assert node.kernel.live == []


@in_a_loop
async def test_what_a_look_misses_the_next_one_finds(node: Node) -> None:
    node.dial()
    node.connect(endpoint=NEAR)
    node.kernel.misses = 3
    node.change(DENY)
    await node.settled()
    assert (node.kernel.live, node.ways.left) == ([], 0)


@in_a_loop
async def test_a_servers_end_that_was_made_when_its_client_was_gone_is_ended_too(node: Node) -> None:
    node.dial()
    node.connect(endpoint=NEAR)
    node.kernel.late = 2
    node.change(DENY)
    await node.settled()
    assert (node.kernel.late, node.ways.left) == (0, 0)


@in_a_loop
async def test_what_nobody_let_in_and_the_kernel_did_not_seal_is_ended(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.dial()
    node.connect(endpoint=NEAR)
    loose = node.connect(endpoint=NEAR, port=40002)
    node.kernel.live[-1] = replace(loose, admitted=False)
    await node.ways.numbers()
    assert [flow.source for flow in node.kernel.live] == [(CLIENT_IP, 40001)]
    assert "ending 1 direct connections that could not be sealed" in caplog.text


@pytest.mark.parametrize("failure", [CaptureError("not now"), OSError(errno.EMFILE, "not now")])
@in_a_loop
async def test_what_could_not_be_sealed_nor_ended_is_tried_at_the_next_look(
    node: Node, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    node.kernel.failure = failure
    node.dial()
    node.kernel.live[:] = [replace(node.connect(endpoint=NEAR), admitted=False)]
    number = node.kernel.live[0].number
    node.kernel.fails = 1
    assert await node.ways.numbers() == {number}
    assert "not now" in caplog.text
    await node.ways.numbers()
    assert node.kernel.live == []


@pytest.mark.parametrize("problem", ["", "it is refused"])
@in_a_loop
async def test_what_cannot_be_ended_is_told_of_and_holds_up_nothing(
    node: Node, caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    node.dial()
    node.connect(endpoint=NEAR)
    node.kernel.misses, node.kernel.fails = (0, 1000) if problem else (1000, 0)
    node.change(DENY)
    await node.settled()
    assert (len(node.kernel.live), node.ways.left) == (1, 1)
    said = caplog.records[-1].getMessage()
    assert said.startswith("1 connections past the engine that are denied now could not be ended, and go on")
    assert "pod shop/client to 10.1.0.5" in said
    assert ("not now" in said) == bool(problem)
    await node.ways.stand_by()
    assert len(node.kernel.live) == 1
    node.kernel.misses = node.kernel.fails = 0
    for _ in range(2):  # the second finds that the first did it
        await node.ways.stand_by()
    assert node.kernel.live == []
    assert caplog.records[-1].getMessage().endswith("that could not be ended are over")
