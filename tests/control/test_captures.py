"""Annotations: on each captured pod of the reporting node, and nowhere else, whoever reports what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ambient.control.captures import Captures
from ambient.control.events import Events
from ambient.model.mesh import Node, Workload
from ambient.model.world import World
from ambient.sources.core import CAPTURED
from ambient.xds.node_server import ReportNotApplied
from ambient.xds.nodes import Failure, PodRef, Report
from tests.identity import virtual

from .apiserver import ApiServer


def a_pod(name: str, node: str = "node-1", *, uid: str = "", **fields: object) -> Workload:
    given = {"namespace": "shop", "enrolled": True} | fields
    return Workload(name=name, uid=uid or f"uid-{name}", node=node, **given)  # type: ignore[arg-type]


def ref(name: str, uid: str = "") -> PodRef:
    return PodRef("shop", name, uid or f"uid-{name}")


def report(*names: str) -> Report:
    return Report(captured=frozenset(ref(name) for name in names))


class Cluster:
    """An API server with pods, the World that is read from it, and what writes to it."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.knows_marks = True  # False: the news of them has not come yet
        self.workloads: dict[str, Workload] = {}
        self.events = Events(self.server.api(), "control-1", now=virtual.now)
        self.captures = self.a_replica()

    def a_replica(self) -> Captures:
        return Captures(self.server.api(), self.events, world=self.world, is_marked=self.is_marked)

    def add(self, *pods: Workload, marked: bool = False) -> None:
        for pod in pods:
            self.workloads[pod.key] = pod
            annotations = {CAPTURED: "true"} if marked else {}
            metadata = {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid, "annotations": annotations}
            self.server.put("pods", {"metadata": metadata, "spec": {"nodeName": pod.node}})

    def world(self) -> World:
        return World.build(nodes=[Node(name=n) for n in ("node-1", "node-2")], workloads=self.workloads.values())

    def is_marked(self, pod: Workload) -> bool:
        return self.knows_marks and self.annotation(pod.name) == "true"

    def annotation(self, name: str) -> str | None:
        found: str | None = self.server.get("pods", "shop", name)["metadata"].get("annotations", {}).get(CAPTURED)
        return found


def in_a_cluster(test: Callable[[Cluster], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.add(a_pod("web"), a_pod("api"), a_pod("db", "node-2"))
        await test(cluster)

    virtual.run(main())


def test_a_captured_pod_says_so_and_the_others_do_not() -> None:
    async def test(cluster: Cluster) -> None:
        assert await cluster.captures.apply("node-1", report("web")) == ()
        assert [cluster.annotation(name) for name in ("web", "api", "db")] == ["true", None, None]

    in_a_cluster(test)


def test_a_pod_that_is_captured_no_longer_does_not_say_so_any_longer() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.captures.apply("node-1", report("web", "api"))
        await cluster.captures.apply("node-1", report("api"))
        assert [cluster.annotation(name) for name in ("web", "api")] == [None, "true"]

    in_a_cluster(test)


def test_a_replica_that_never_heard_of_the_node_puts_right_what_another_wrote() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.captures.apply("node-1", report("web"))
        await cluster.a_replica().apply("node-1", report("api"))
        assert [cluster.annotation(name) for name in ("web", "api")] == [None, "true"]

    in_a_cluster(test)


def test_a_pod_that_was_un_enrolled_loses_the_annotation_whichever_replica_hears_of_it() -> None:
    """An agent's reports are short calls, and a Service spreads these over the replicas."""

    async def test(cluster: Cluster) -> None:
        await cluster.captures.apply("node-1", report("web", "api"))
        cluster.workloads["shop/web"] = a_pod("web", enrolled=False)
        await cluster.a_replica().apply("node-1", report("api"))
        assert [cluster.annotation(name) for name in ("web", "api")] == [None, "true"]

    in_a_cluster(test)


def test_a_pod_that_was_un_enrolled_loses_the_annotation_when_it_is_let_go() -> None:
    """Also at once, before the replica has seen what it wrote itself."""

    async def test(cluster: Cluster) -> None:
        await cluster.captures.apply("node-1", report("web", "api"))
        cluster.workloads["shop/web"] = a_pod("web", enrolled=False)
        await cluster.captures.apply("node-1", report("web", "api"))
        assert cluster.annotation("web") == "true"
        cluster.knows_marks = False
        await cluster.captures.apply("node-1", report("api"))
        assert cluster.annotation("web") is None

    in_a_cluster(test)


def test_what_is_there_already_is_not_written_again() -> None:
    async def test(cluster: Cluster) -> None:
        for _ in range(5):
            await cluster.captures.apply("node-1", report("web", "api"))
        assert cluster.server.count("PATCH pods") == 2

    in_a_cluster(test)


@pytest.mark.parametrize(
    "pod",
    [ref("db"), ref("web", "uid of an earlier one"), PodRef("bank", "web", "uid-web"), ref("nobody"), ref("host")],
    ids=["another node's", "a namesake", "another namespace", "unknown", "host network"],
)
def test_what_is_no_pod_of_the_node_is_named_and_not_written(pod: PodRef) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.add(a_pod("host", host_network=True))
        assert await cluster.captures.apply("node-1", Report(captured=frozenset([pod]))) == (pod,)
        assert not cluster.server.requests

    in_a_cluster(test)


def test_a_node_takes_nothing_away_from_another() -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.captures.apply("node-2", report("db"))
        await cluster.captures.apply("node-1", report("web"))
        await cluster.captures.apply("node-1", report())
        assert cluster.annotation("db") == "true"

    in_a_cluster(test)


def test_a_pod_replaced_in_the_moment_of_writing_is_left_alone_and_asked_about_again() -> None:
    async def test(cluster: Cluster) -> None:
        cluster.server.delete("pods", "shop", "web")
        cluster.server.put("pods", {"metadata": {"namespace": "shop", "name": "web", "uid": "another"}, "spec": {}})
        with pytest.raises(ReportNotApplied, match="1 of 1 pods"):
            await cluster.captures.apply("node-1", report("web"))
        assert cluster.annotation("web") is None

    in_a_cluster(test)


def test_a_pod_deleted_in_the_moment_of_writing_is_nobodys_concern() -> None:
    async def test(cluster: Cluster) -> None:
        cluster.workloads["shop/ghost"] = a_pod("ghost")
        cluster.server.objects.clear()
        cluster.add(a_pod("web"))
        cluster.workloads["shop/api"] = a_pod("api")
        marked = cluster.captures
        marked._is_marked = lambda _: False
        assert await marked.apply("node-1", report("web", "api", "ghost")) == ()
        assert cluster.annotation("web") == "true"

    in_a_cluster(test)


def test_what_could_not_be_written_is_an_error_and_the_rest_is_written() -> None:
    async def test(cluster: Cluster) -> None:
        with (
            cluster.server.trouble("PATCH", "pods", status=503, times=1),
            pytest.raises(ReportNotApplied, match=r"1 of 2 pods could not be written: cannot patch Pod shop/api: 503"),
        ):
            await cluster.captures.apply("node-1", report("web", "api"))
        assert cluster.annotation("web") == "true"
        await cluster.captures.apply("node-1", report("web", "api"))
        assert cluster.annotation("api") == "true"

    in_a_cluster(test)


def test_a_mesh_wide_change_is_spread() -> None:
    async def test(cluster: Cluster) -> None:
        names = [f"web-{number}" for number in range(100)]
        cluster.add(*(a_pod(name) for name in names))
        gate = asyncio.Event()
        cluster.server.order("PATCH", "pods", gate=gate)
        applying = asyncio.create_task(cluster.captures.apply("node-1", report(*names)), name="report")
        await asyncio.sleep(1)
        assert cluster.server.count("PATCH pods") == 16
        gate.set()
        await applying
        assert all(cluster.annotation(name) == "true" for name in names)

    in_a_cluster(test)


def test_a_failure_becomes_an_event_on_the_pod_and_only_on_a_pod_of_the_node() -> None:
    async def test(cluster: Cluster) -> None:
        writing = asyncio.create_task(cluster.events.run(), name="events")
        failures = (
            Failure(ref("web"), "NoNetns", "its network namespace is gone"),
            Failure(ref("api"), "not a reason!", "whatever"),
            Failure(ref("db"), "NoNetns", "not this node's to say"),
        )
        for _ in range(3):
            await cluster.captures.apply("node-1", Report(failures=failures))
        await asyncio.sleep(1)
        found = [obj for (plural, _, _), obj in cluster.server.objects.items() if plural == "events"]
        assert sorted((event["regarding"]["name"], event["reason"]) for event in found) == [
            ("api", "CaptureFailed"),
            ("web", "NoNetns"),
        ]
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    in_a_cluster(test)


def test_of_nodes_that_are_gone_nothing_is_kept() -> None:
    async def test(cluster: Cluster) -> None:
        for number in range(50):
            await cluster.captures.apply(f"node-{number}", report())
        assert len(cluster.captures._last) <= 2

    in_a_cluster(test)
