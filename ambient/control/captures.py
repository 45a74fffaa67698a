"""Node reports become annotations: `ambient.dev/captured` on each pod that is, and on no other.

Only a pod that the World has on the reporting node is written to, and only if it still is that pod (by its uid). Every
report is compared with what is there, because any replica may get the next one; writing the same again changes nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

from ambient.control import api
from ambient.control.api import Api, ApiError, Patch
from ambient.control.events import Events, Subject
from ambient.model.mesh import Workload
from ambient.model.world import World
from ambient.sources.core import CAPTURED
from ambient.xds.node_server import ReportNotApplied
from ambient.xds.nodes import Failure, PodRef, Report

WRITES = 16  # under way at once, for all nodes: a mesh-wide change is spread, not refused
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")


@dataclass(frozen=True, slots=True)
class Mark:
    """A pod whose annotation is to come or to go."""

    pod: PodRef
    captured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    marks: tuple[Mark, ...]
    unknown: tuple[PodRef, ...]  # reported, but not by our knowledge pods of that node
    captured: frozenset[str]  # uids


def plan(world: World, node: str, report: Report, is_marked: Callable[[Workload], bool]) -> Plan:
    """What a report leads to. Pure. `is_marked`: whether a pod has the annotation now."""
    here = {PodRef(each.namespace, each.name, each.uid): each for each in world.workloads_on(node)}
    known = {pod for pod in report.captured if pod in here and not here[pod].host_network}
    coming = [Mark(pod, True) for pod in sorted(known) if not is_marked(here[pod])]
    going = [Mark(pod, False) for pod in sorted(here.keys() - known) if is_marked(here[pod])]
    return Plan(
        marks=(*coming, *going),
        unknown=tuple(sorted(report.captured - known)),
        captured=frozenset(pod.uid for pod in known),
    )


class Captures:
    def __init__(
        self, kubernetes: Api, events: Events, *, world: Callable[[], World], is_marked: Callable[[Workload], bool]
    ) -> None:
        """`is_marked`: what the World says of a pod's annotation."""
        self._api = kubernetes
        self._events = events
        self._world = world
        self._is_marked = is_marked
        self._places = asyncio.Semaphore(WRITES)
        self._last: dict[str, frozenset[str]] = {}  # by node: uids that we marked, while the World may not say so yet

    async def apply(self, node: str, report: Report) -> tuple[PodRef, ...]:
        """See node_server.Apply."""
        world, last = self._world(), self._last.get(node, frozenset())
        planned = plan(world, node, report, lambda pod: self._is_marked(pod) or (not pod.enrolled and pod.uid in last))
        self._warn(world, node, report.failures)
        done = await asyncio.gather(*(self._write(mark) for mark in planned.marks), return_exceptions=True)
        failed = [error for error in done if isinstance(error, BaseException)]
        if others := [error for error in failed if not isinstance(error, ApiError)]:
            raise others[0]
        if failed:
            raise ReportNotApplied(f"{len(failed)} of {len(done)} pods could not be written: {failed[0]}")
        self._last[node] = planned.captured
        if len(self._last) > len(world.nodes):
            self._last = {name: uids for name, uids in self._last.items() if name in world.nodes}
        return planned.unknown

    async def _write(self, mark: Mark) -> None:
        metadata = {"namespace": mark.pod.namespace, "name": mark.pod.name, "uid": mark.pod.uid}
        annotations = {CAPTURED: "true" if mark.captured else None}
        async with self._places:
            try:
                await self._api.patch(
                    api.POD, {"metadata": {**metadata, "annotations": annotations}}, Patch.MERGE, status=True
                )  # by its status: the right to change pods would be one to change their images
            except ApiError as error:
                if error.status != api.NOT_FOUND:  # INVALID: it is another pod by now, as the World will say soon
                    raise

    def _warn(self, world: World, node: str, failures: tuple[Failure, ...]) -> None:
        here = {each.uid for each in world.workloads_on(node)}
        for failure in failures:
            pod = failure.pod
            if pod.uid not in here:
                continue
            subject = Subject(api_version="v1", kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.uid)
            reason = failure.reason if _REASON.fullmatch(failure.reason) else "CaptureFailed"
            self._events.warn(subject, "Capture", reason, failure.message)
