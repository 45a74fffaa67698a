"""Node reports: whole, repeated until they are acted upon, and for the caller's own node only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from ambient.xds import nodes
from ambient.xds.calls import CallFailed
from ambient.xds.nodes import Failure, PodRef, Report, Reporter
from ambient.xds.proto import nodes_pb2 as pb

from .plane import Agent, running, with_agent

WEB, API = PodRef("shop", "web-1", "uid-web"), PodRef("shop", "api-1", "uid-api")
REPORT = Report(captured=frozenset([WEB]), failures=(Failure(API, "NoNetns", "its network namespace is gone"),))


@contextlib.asynccontextmanager
async def reporting(agent: Agent) -> AsyncIterator[Reporter]:
    reporter = Reporter(agent.call, rng=agent.rng)
    task = asyncio.create_task(reporter.run(), name="reporter under test")
    try:
        yield reporter
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - of two sides, and neither has an event for it
            await asyncio.sleep(0.01)


def test_a_report_arrives_whole_under_its_callers_node(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path, node="node-2") as (plane, agent):
            async with reporting(agent) as reporter:
                reporter.tell(REPORT)
                await until(lambda: bool(plane.seen))
            assert plane.seen == [("node-2", REPORT)]
            assert reporter.error == ""

    asyncio.run(main())


def test_an_agent_that_captured_nothing_yet_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent), reporting(agent) as reporter:
            reporter.tell(Report())
            await until(lambda: bool(plane.seen))
            assert plane.seen == [("node-1", Report())]

    asyncio.run(main())


def test_of_many_states_in_a_hurry_the_last_one_arrives(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent), reporting(agent) as reporter:
            for number in range(100):
                reporter.tell(Report(captured=frozenset([PodRef("shop", f"web-{number}", "u")])))
                await asyncio.sleep(0)
            await until(lambda: bool(plane.seen) and PodRef("shop", "web-99", "u") in plane.seen[-1][1].captured)
            assert len(plane.seen) < 10

    asyncio.run(main())


def test_a_state_that_was_told_is_not_told_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent), reporting(agent) as reporter:
            reporter.tell(REPORT)
            await until(lambda: bool(plane.seen))
            reporter.tell(REPORT)
            await asyncio.sleep(0.1)
            assert len(plane.seen) == 1

    asyncio.run(main())


def test_what_was_not_applied_is_said_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent), reporting(agent) as reporter:
            plane.broken = "2 of 3 pods could not be written"
            reporter.tell(REPORT)
            await until(lambda: "2 of 3 pods" in reporter.error)
            plane.broken = ""
            await until(lambda: reporter.error == "")
            assert plane.seen == [("node-1", REPORT)] * 2

    asyncio.run(main())


def test_pods_the_control_plane_has_not_heard_of_are_said_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent), reporting(agent) as reporter:
            plane.unknown = [API, WEB]
            reporter.tell(REPORT)
            await until(lambda: reporter.error.endswith("on this node: shop/api-1, shop/web-1"))
            plane.unknown = []
            await until(lambda: reporter.error == "")

    asyncio.run(main())


async def send(agent: Agent, report: pb.NodeReport) -> None:
    await agent.call(f"/{nodes.SERVICE}/Report", report.SerializeToString())


def test_a_report_beyond_any_node_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent):
            with pytest.raises(CallFailed, match="INVALID_ARGUMENT: a report on 5001 pods"):
                await send(agent, pb.NodeReport(captured=[pb.Pod(name=str(each)) for each in range(5001)]))
            assert not plane.seen

    asyncio.run(main())


def test_a_stranger_reports_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent):
            agent.token_file.write_text("stolen")
            with pytest.raises(CallFailed, match="UNAUTHENTICATED"):
                await send(agent, pb.NodeReport())
            assert not plane.seen

    asyncio.run(main())


def test_a_report_whose_caller_gave_up_is_not_worked_on_any_longer() -> None:
    """Its successor may be on its way to another replica."""

    async def main() -> None:
        async with running() as plane:
            ended = asyncio.Event()

            async def slowly(_node: str, _report: Report) -> list[PodRef]:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
                return []

            plane.nodes._apply = slowly
            async with plane.channel() as channel:
                stub: Any = channel.unary_unary(f"/{nodes.SERVICE}/Report")
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub(b"", timeout=0.2, metadata=(("authorization", "Bearer token-1"),))
            await asyncio.wait_for(ended.wait(), 30)

    asyncio.run(main())
