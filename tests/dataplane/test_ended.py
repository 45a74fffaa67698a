"""What the kernel's ring tells: records, and what an end says of the way."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from ambient.capture.direct import Ended, Outcome
from ambient.capture.errors import CaptureError
from ambient.dataplane import ended
from ambient.observe.records import Ending, Flow
from tests.dataplane.direct import NEAR, VIP, Node, a_near_pod, in_a_loop
from tests.dataplane.worlds import CLIENT, WEB_IP


def test_a_record_has_both_identities_the_rule_and_the_bytes(node: Node) -> None:
    node.dial()
    node.kernel.end(node.connect(endpoint=NEAR), sent=10, got=2000)
    node.ways.ended.read()
    ((flow, ending),) = node.records.direct
    assert (flow.reporter, flow.path, flow.security) == ("destination", "direct", "unknown")
    assert (flow.source.principal, flow.destination.principal) == (
        CLIENT.principal,
        "cluster.local/ns/shop/sa/near",
    )
    assert (flow.service, flow.rule) == ("web.shop.svc.cluster.local", "no policy")
    assert (ending.source, ending.destination, ending.dialled) == ("10.1.0.1:40001", "10.96.0.1:80", "10.1.0.5:8080")
    assert (ending.sent, ending.received, ending.reason) == (10, 2000, "closed")
    assert (ending.duration_ns, ending.setup_ns) == (5_000_000, 1_000)
    assert node.records.flushed == 1


@in_a_loop
async def test_what_ends_in_one_moment_is_written_together_and_more_than_a_batch_in_turns(node: Node) -> None:
    await node.ways.take_over()
    running = asyncio.create_task(node.ways.run())
    node.dial()
    for port in range(ended.BATCH + 1):
        node.kernel.end(node.connect(endpoint=NEAR, port=port + 1))
    async with asyncio.timeout(30):
        while len(node.records.direct) <= ended.BATCH:
            await node.records.written.wait()
            node.records.written.clear()
    assert node.records.flushed == 2
    node.kernel.end(node.connect(endpoint=NEAR))
    async with asyncio.timeout(30):
        await node.records.written.wait()
    assert (len(node.records.direct), node.records.flushed) == (ended.BATCH + 2, 3)
    running.cancel()


def test_one_that_cannot_be_written_keeps_none_of_the_others_from_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.dial()
    for port, outcome in enumerate((Outcome.CLOSED, Outcome.TIMED_OUT, Outcome.RESET_CLIENT, Outcome.CLOSED)):
        node.kernel.end(node.connect(endpoint=NEAR, port=port + 1), outcome)
    write = node.records.ended_directly

    def refuse(flow: Flow, *endings: Ending) -> None:
        if endings[0].reason == "timeout":
            raise KeyError(flow.rule)
        write(flow, *endings)

    monkeypatch.setattr(node.records, "ended_directly", refuse)
    with pytest.raises(ExceptionGroup, match="not written"):
        node.ways.ended.read()
    assert sorted(ending.reason for _, ending in node.records.direct) == ["closed", "closed", "reset_client"]
    assert node.records.flushed == 1
    assert node.ways.ended.read() == 0


def test_what_the_kernel_cannot_tell_keeps_nothing_back_that_it_told_before(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.dial()
    node.kernel.end(node.connect(endpoint=NEAR))

    def read(take: Callable[[Ended], None], limit: int) -> int:
        assert limit
        take(node.kernel.ring[0])
        raise CaptureError("and then")

    monkeypatch.setattr(node.kernel, "read", read)
    with pytest.raises(CaptureError):
        node.ways.ended.read()
    assert len(node.records.direct) == 1


@in_a_loop
async def test_an_endpoint_that_did_not_answer_is_set_aside_while_there_are_others(node: Node) -> None:
    node.dial()
    failed = replace(node.connect(endpoint=NEAR), established_ns=None)
    node.kernel.end(failed, Outcome.FAILED, error=errno.ECONNREFUSED)
    node.ways.ended.read()
    assert node.records.direct[0][1].error == errno.ECONNREFUSED
    assert node.records.failures == ["dial"]
    assert node.verdict() is None
    assert node.asked(VIP)[1] == {(WEB_IP, 8080): 1, NEAR: 0}


@in_a_loop
async def test_a_client_that_does_not_hear_its_server_sets_nobody_aside(node: Node) -> None:
    node.dial()
    node.kernel.end(replace(node.connect(endpoint=NEAR), established_ns=None), Outcome.FAILED, error=errno.ETIMEDOUT)
    node.ways.ended.read()
    assert node.records.failures == []
    assert node.verdict() is not None


@pytest.mark.parametrize("error", [errno.ETIMEDOUT, errno.EHOSTUNREACH, 0], ids=["given up", "rejected", "closed"])
@in_a_loop
async def test_a_pair_between_which_the_apps_port_is_shut_goes_through_the_engine(node: Node, error: int) -> None:
    """A NetworkPolicy may know of port 15008 alone."""
    node.dial()
    flow = replace(node.connect(endpoint=NEAR), established_ns=None, admitted=False)
    node.kernel.end(flow, Outcome.FAILED, error=error, after_ns=ended.LOST_NS)
    node.ways.ended.read()
    assert list(node.ways.ended.aside) == [("shop/client", "shop/near")]
    assert node.verdict() is None
    assert node.asked(VIP)[1] == {(WEB_IP, 8080): 1, NEAR: 1}, "the endpoint is well, for all that is known"


@in_a_loop
async def test_a_client_that_gives_up_at_once_says_nothing_of_the_way(node: Node) -> None:
    node.dial()
    node.kernel.end(replace(node.connect(endpoint=NEAR), established_ns=None, admitted=False), Outcome.FAILED)
    node.ways.ended.read()
    assert node.ways.ended.aside == {}


@in_a_loop
async def test_what_was_not_admitted_keeps_the_pair_from_the_direct_path_for_a_while(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ended, "ASIDE_S", 0.0)
    node.dial()
    node.kernel.end(replace(node.connect(endpoint=NEAR), admitted=False, sealed=True), Outcome.UNADMITTED)
    node.ways.ended.read()
    ((flow, ending),) = node.records.direct
    assert (flow.verdict, flow.reason, ending.reason) == ("deny", "unadmitted", "unadmitted")
    assert "pod shop/client to pod shop/near" in caplog.text
    said = node.ways.in_the_way("shop/client", "shop/near")
    assert said.startswith(
        "the two go through the engine for some minutes, because a connection was answered past the "
    )
    assert node.ways.in_the_way("shop/near", "shop/client") == ""
    assert node.verdict() is None
    assert node.asked(VIP)[1] == {(WEB_IP, 8080): 1, NEAR: 1}
    asyncio.get_running_loop().call_later(0.01, (over := asyncio.Event()).set)
    await over.wait()
    assert node.ways.ended.aside == {}
    node.dial()
    assert node.verdict() is not None, "it is tried again"


def test_one_that_was_slower_than_a_change_says_nothing_of_the_pair(node: Node) -> None:
    node.dial()
    flow = replace(node.connect(endpoint=NEAR), admitted=False, sealed=True)
    node.change(a_near_pod(ready=False))
    node.kernel.end(flow, Outcome.UNADMITTED)
    node.ways.ended.read()
    assert node.ways.ended.aside == {}


def test_what_is_told_alike_is_made_once_and_kept_no_longer_than_its_verdict(node: Node) -> None:
    node.dial()
    flow = node.connect(endpoint=NEAR)
    first, second = (node.ways.ended.flow_of(flow, Outcome.UNADMITTED) for _ in range(2))
    assert first is second
    node.ways.withdraw([flow.number])
    late = node.ways.ended.flow_of(flow, Outcome.UNADMITTED)
    assert late is not first
    assert late == first
