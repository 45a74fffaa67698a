"""Which nodes do not enforce a policy is said on it, and taken back when they do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ambient.control import enforcement
from ambient.control.enforcement import LOOK_S, VERSION, Enforcement, missing
from ambient.model.mesh import Node, TrafficPolicy, Workload
from ambient.model.world import World
from tests.identity import virtual

from .apiserver import ApiServer

ROOT = "ambient-system"
SINCE = (0, 1, 0)


def an_agent(node: str, version: str | None = "0.1.0", name: str = "") -> Workload:
    labels = {**enforcement.AGENT, **({VERSION: version} if version is not None else {})}
    return Workload(namespace=ROOT, name=name or f"agent-{node}", uid="u", node=node, labels=labels, host_network=True)


def a_pod(node: str, *, enrolled: bool = True) -> Workload:
    return Workload(namespace="shop", name=f"web-{node}-{enrolled}", uid="u", node=node, enrolled=enrolled)


def a_world(*workloads: Workload, created: str = "") -> World:
    nodes = [Node(name=name) for name in sorted({each.node for each in workloads if each.node})]
    policies = [TrafficPolicy(namespace="shop", name="inside-only", created=created)]
    return World.build(nodes=nodes, workloads=workloads, traffic_policies=policies)


@pytest.mark.parametrize(
    ("workloads", "said"),
    [
        ([an_agent("a"), a_pod("a")], ""),
        ([an_agent("a", "0.2.0-rc1"), a_pod("a")], ""),
        ([an_agent("a", "0.0.9"), a_pod("a")], "the agents of node a are older than 0.1.0 and ignore it"),
        ([an_agent("a", None), a_pod("a")], "the agents of node a are older"),
        ([an_agent("a", "latest"), a_pod("a")], "the agents of node a are older"),
        ([an_agent("a", "0.0.9"), an_agent("a", "0.10.0", "newer"), a_pod("a")], ""),
        ([a_pod("a")], "there is no agent on node a"),
        ([an_agent("b", "0.0.9"), a_pod("a", enrolled=False)], ""),
        (
            [an_agent("b", "0.0.9"), a_pod("b"), a_pod("a")],
            "older than 0.1.0 and ignore it; there is no agent",
        ),
        ([], ""),
    ],
)
def test_a_node_with_pods_of_the_mesh_needs_an_agent_that_knows_the_policy(
    workloads: list[Workload], said: str
) -> None:
    found = missing(a_world(*workloads), ROOT, SINCE)
    assert bool(found) == bool(said)
    assert said in found


def test_of_many_nodes_some_are_named() -> None:
    found = missing(a_world(*(a_pod(f"n{each:02}") for each in range(30))), ROOT, SINCE)
    assert "n00, n01" in found
    assert found.endswith("n09 and 20 more")


class Watched:
    def __init__(self) -> None:
        self.world = a_world(an_agent("a", "0.0.9"), a_pod("a"))
        self.server = ApiServer()
        self.enforcement = Enforcement(self.server.api(), ROOT, lambda: self.world, now=virtual.now)
        self.make()

    def make(self) -> None:
        metadata = {"namespace": "shop", "name": "inside-only", "uid": "u", "generation": 1}
        self.server.put("trafficpolicies", {"metadata": metadata, "spec": {}})

    def said(self) -> list[tuple[str, str, str]]:
        found = self.server.get("trafficpolicies", "shop", "inside-only").get("status", {}).get("conditions", [])
        return [(each["type"], each["status"], each["message"]) for each in found]


def watching(test: Callable[[Watched], Awaitable[None]]) -> None:
    async def main() -> None:
        watched = Watched()
        task = asyncio.create_task(watched.enforcement.run(), name="under test")
        await asyncio.sleep(1)
        await test(watched)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    virtual.run(main())


def test_it_is_said_until_every_node_enforces_it_and_other_conditions_stay() -> None:
    async def test(watched: Watched) -> None:
        ((kind, status, message),) = watched.said()
        assert (kind, status) == ("Enforced", "False")
        assert "node a" in message
        policy = watched.server.get("trafficpolicies", "shop", "inside-only")
        policy["status"]["conditions"].append({"type": "Accepted", "status": "True", "message": "in force"})
        watched.world = a_world(an_agent("a"), a_pod("a"))
        await asyncio.sleep(2 * LOOK_S)
        assert [each[:2] for each in watched.said()] == [("Enforced", "True"), ("Accepted", "True")]

    watching(test)


def test_what_was_said_is_not_said_again() -> None:
    async def test(watched: Watched) -> None:
        asked = len(watched.server.requests)
        watched.world = a_world(an_agent("a", "0.0.9"), a_pod("a"), a_pod("a", enrolled=False))
        await asyncio.sleep(3 * LOOK_S)
        assert len(watched.server.requests) == asked

    watching(test)


def test_a_policy_of_the_same_name_is_another_one() -> None:
    async def test(watched: Watched) -> None:
        watched.server.delete("trafficpolicies", "shop", "inside-only")
        watched.make()
        assert watched.said() == []
        watched.world = a_world(an_agent("a", "0.0.9"), a_pod("a"), created="2026-01-02T00:00:00Z")
        await asyncio.sleep(2 * LOOK_S)
        assert len(watched.said()) == 1

    watching(test)


def test_one_that_is_gone_is_left_alone_and_one_that_cannot_be_written_tried_again() -> None:
    async def test(watched: Watched) -> None:
        watched.world = a_world(an_agent("a"), a_pod("a"))
        with watched.server.trouble("PATCH", "trafficpolicies", status=409):
            await asyncio.sleep(2 * LOOK_S)
        await asyncio.sleep(60)
        assert [each[1] for each in watched.said()] == ["True"]
        watched.server.delete("trafficpolicies", "shop", "inside-only")
        watched.world = a_world(a_pod("a"))
        await asyncio.sleep(2 * LOOK_S)
        assert ("trafficpolicies", "shop", "inside-only") not in watched.server.objects

    watching(test)


def test_every_kind_that_agents_may_not_know_is_one_that_is_written() -> None:
    known: Any = enforcement.SINCE
    assert known.keys() == {"TrafficPolicy"}, "the writer knows this one's plural only"
