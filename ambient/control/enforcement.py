"""Which nodes enforce a policy, said on it: the condition Enforced. Agents are judged by the version their pods bear.

An agent that is older than a kind of policy ignores it, and so does a node without an agent. Nobody would notice while
a mesh is upgraded node by node. One replica's business, as the condition Accepted is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from ambient.control import api
from ambient.control.api import Api, ApiError, Kind, Patch
from ambient.control.status import Ours, merged
from ambient.control.workqueue import WorkQueue
from ambient.model.world import World

CONDITION = "Enforced"
VERSION = "app.kubernetes.io/version"  # label of agents' pods, as daemonset.yaml has it
AGENT = {"app.kubernetes.io/name": "ambient-agent"}
Since = tuple[int, int, int]
# Kinds that agents of other versions may not know, and since when they do; with the version of the API that has them.
SINCE: Mapping[str, tuple[str, Since]] = {"TrafficPolicy": ("ambient.dev/v1alpha1", (0, 1, 0))}
LOOK_S = CALM_S = 5.0  # nodes come and go while a mesh is upgraded
WORKERS = 2
LAST_S = 300.0
SHOWN = 10  # nodes by name; the rest is counted
_NUMBER = re.compile(r"(\d+)\.(\d+)\.(\d+)")

Policy = tuple[str, str, str]  # kind, namespace, name


class Enforcement:
    def __init__(
        self,
        kubernetes: Api,
        namespace: str,
        world: Callable[[], World],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """namespace: the agents'."""
        self._api, self._namespace, self._world, self._now = kubernetes, namespace, world, now
        self._told: dict[Policy, tuple[str, str]] = {}  # what, and of the one that was created when
        self._seen: World | None = None

    async def run(self) -> None:
        """Until cancelled."""
        queue: WorkQueue[Policy, str] = WorkQueue(self._write, calm=CALM_S, last=LAST_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(queue.run(WORKERS), name="enforcement: writers")
            while True:
                for policy, message in self._news():
                    queue.put(policy, message)
                await asyncio.sleep(LOOK_S)

    def _news(self) -> Iterator[tuple[Policy, str]]:
        """What is to be said of whom, and was not yet. Looked at only when something is another than it was."""
        world = self._world()
        if world is self._seen:
            return
        self._seen = world
        told: dict[Policy, tuple[str, str]] = {}
        for kind, (_, since) in SINCE.items():
            message = missing(world, self._namespace, since)
            for each in world.traffic_policies.values():
                told[kind, each.namespace, each.name] = message, each.created
        yield from ((policy, what[0]) for policy, what in told.items() if self._told.get(policy) != what)
        self._told = told

    async def _write(self, policy: Policy, message: str) -> None:
        kind, namespace, name = policy
        resource = Kind(kind, "trafficpolicies", SINCE[kind][0], namespaced=True)
        found = await api.find(self._api, resource, namespace, name)
        if found is None:
            return
        ours = Ours(
            type=CONDITION,
            status="False" if message else "True",
            reason="NotOnEveryNode" if message else "OnEveryNode",
            message=message or "by the agent of every node with pods of the mesh",
            generation=int(found["metadata"].get("generation") or 0),
        )
        conditions = merged(found, ours, self._now())
        if conditions is None:
            return
        metadata = {key: found["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        try:
            await self._api.patch(
                resource, {"metadata": metadata, "status": {"conditions": conditions}}, Patch.MERGE, status=True
            )
        except ApiError as error:
            if error.status != api.NOT_FOUND:
                raise


def missing(world: World, namespace: str, since: Since) -> str:
    """Which nodes with pods of the mesh do not enforce what agents know since a version; empty: all do. Pure."""
    agents: dict[str, str] = {}
    for pod in world.workloads_in(namespace):
        if AGENT.items() <= pod.labels.items():
            agents[pod.node] = max(agents.get(pod.node, ""), pod.labels.get(VERSION, ""), key=_version)
    nodes = {pod.node for pod in world.workloads.values() if pod.enrolled and pod.node}
    old = sorted(node for node in nodes & agents.keys() if _version(agents[node]) < since)
    without = sorted(nodes - agents.keys())
    said = []
    if old:
        said.append(f"the agents of {_listed(old)} are older than {'.'.join(map(str, since))} and ignore it")
    if without:
        said.append(f"there is no agent on {_listed(without)}")
    return "not enforced everywhere: " + "; ".join(said) if said else ""


def _version(text: str) -> Since:
    found = _NUMBER.match(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def _listed(nodes: list[str]) -> str:
    more = len(nodes) - SHOWN
    what = "node " if len(nodes) == 1 else "nodes "
    return what + ", ".join(nodes[:SHOWN]) + (f" and {more} more" if more > 0 else "")
