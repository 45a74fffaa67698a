"""The daemon of one lab: API server, scheduler, kubelets and controllers in one. One change at a time; state in memory.

A change: the new objects are computed and checked whole, pods and nodes are prepared, the objects are published,
programs start. Then the caller waits until all pods are ready and every agent works by exactly what was published.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from ambient.lab import admission, changes, cluster, endpoints, kubeproxy, names, report
from ambient.lab.cluster import Objects
from ambient.lab.errors import LabError, NotReady, Refused
from ambient.lab.kubelets import Kubelets
from ambient.lab.layout import Layout
from ambient.lab.manifests import Key
from ambient.lab.rpc import Handler
from ambient.lab.state import State
from ambient.lab.store import Store
from ambient.sources import directory
from ambient.sources.documents import Document
from ambient.sources.errors import Place
from ambient.sources.reading import hint

CONVERGE_S = 5.0  # for the mesh, when the time was spent on waiting for pods
log = logging.getLogger(__name__)


class Daemon:
    """Owns the objects; everything else is made to follow them."""

    def __init__(self, layout: Layout, state: State, agents: tuple[str, ...] | None) -> None:
        self.layout = layout
        self.objects: Objects = cluster.INITIAL
        self.kubelets = Kubelets(layout, state, agents=agents, on_change=self._pod_changed)
        self._store = Store(layout.cluster, layout.staging)
        self._change = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._revision = ""  # of what was published last
        self._published = asyncio.Condition()  # notified after every publication

    def handlers(self) -> dict[str, Handler]:
        return {
            "apply": self.apply,
            "delete": self.delete,
            "label": self.label,
            "wait": self.wait,
            "status": self.status,
            "entrance": self.entrance,
        }

    async def prepare(self) -> None:
        """Make what every lab has, before the first request."""
        for folder in (self.layout.cluster, self.layout.staging, self.layout.state / "pods", self.layout.ca):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.kubelets.make_fabric()
        await self._publish()

    async def run(self) -> None:
        """Keep the published status true to the pods; returns never."""
        while True:
            await self._dirty.wait()
            async with self._change:
                await self._publish()

    # Verbs

    async def apply(self, request: dict[str, Any]) -> object:
        documents = [_document(row) for row in request["documents"]]
        async with self._change:
            before, old = {pod.key for pod in self.kubelets.unready()}, self.objects
            judged = admission.judge(self.objects, documents, new_uid=lambda: str(uuid.uuid4()))
            admission.refuse(judged.errors)
            await self._become(judged.objects)
        return await self._settle(
            request,
            leave=before - judged.given.keys(),
            remarks=[*_nothing(documents), *map(str, judged.notes)],
            did=changes.applied(old, judged.objects, judged.given),
        )

    async def delete(self, request: dict[str, Any]) -> object:
        documents = [_document(row) for row in request["documents"]]
        async with self._change:
            before, old = {pod.key for pod in self.kubelets.unready()}, self.objects
            objects, errors = cluster.deleted(self.objects, admission.named(documents))
            admission.refuse(errors)
            await self._become(objects)
        return await self._settle(request, leave=before, remarks=_nothing(documents), did=changes.deleted(old, objects))

    async def label(self, request: dict[str, Any]) -> object:
        key = cluster.target(request["target"])
        async with self._change:
            before, old = {pod.key for pod in self.kubelets.unready()}, self.objects
            objects = cluster.labelled(self.objects, key, request["changes"])
            admission.refuse(admission.contradictions(objects))
            await self._become(objects)
        return await self._settle(request, leave=before - {key}, did=changes.labelled(old, objects, key))

    async def wait(self, request: dict[str, Any]) -> object:
        """Until every pod is ready and the mesh has converged. Raises NotReady, naming what is not."""
        return await self._settle(request)

    async def status(self, _request: dict[str, Any]) -> object:
        return await report.status(self.layout, self.objects, self.kubelets)

    async def entrance(self, request: dict[str, Any]) -> object:
        """What it takes to get into a pod; asks no agent, so it also answers while one is away."""
        pods = {key.pod: pod for key, pod in self.kubelets.pods.items()}
        if request["pod"] not in pods:
            raise Refused(f"there is no pod {request['pod']!r}; {hint(request['pod'], sorted(pods))}")
        return report.entrance(pods[request["pod"]])

    # Inside

    async def _become(self, objects: Objects) -> None:
        """Make the cluster be `objects`, or raise LabError and change nothing. The caller holds the lock."""
        try:
            await self.kubelets.prepare(objects)
            self.objects = objects
        except LabError:
            await self.kubelets.prepare(self.objects)  # back to what was: a change is made whole or not at all
            raise
        finally:
            await self._publish()
            self.kubelets.start()

    async def _publish(self) -> None:
        """Bring status into the objects and the objects to everybody who reads them."""
        self._dirty.clear()
        self.objects = self._with_status()
        if self._store.write(self.objects):
            self._revision = directory.revision(self.layout.cluster)
            self.kubelets.set_services(
                {
                    node: kubeproxy.ruleset(endpoints.service_ports(self.objects, node))
                    for node in sorted(self.kubelets.nodes)
                }
            )
            for key, pod in self.kubelets.pods.items():
                pod.set_hosts(names.hosts(self.objects, self.objects[key]))
        async with self._published:
            self._published.notify_all()

    def _with_status(self) -> Objects:
        result = dict(self.objects)
        for key, body in self.objects.items():
            if key.kind == "Pod" and key in self.kubelets.pods:
                result[key] = {**body, "status": self.kubelets.pods[key].status()}
            elif key.kind == "Node" and key.name in self.kubelets.nodes:
                spec = {**(body.get("spec") or {}), **self.kubelets.node_spec(key.name)}
                result[key] = {**body, "spec": spec, "status": self.kubelets.node_status(key.name)}
        return result

    def _pod_changed(self) -> None:
        self._dirty.set()

    async def _settle(
        self,
        request: dict[str, Any],
        *,
        leave: Collection[Key] = (),
        remarks: Sequence[str] = (),
        did: Sequence[str] = (),
    ) -> object:
        """Until pods are ready and the mesh has converged. Raises NotReady, naming what is not.

        `leave`: pods that were not ready before and are no matter of this request: others do not wait for them. `did`:
        what the request changed, which is told in either case.
        """
        began = time.monotonic()
        deadline = began + float(request["timeout"])
        while True:
            troubles = await self._pods_ready(deadline, leave)
            # The mesh also converges around a pod that will not get ready: the change is done, then told of.
            converge_by = max(deadline, time.monotonic() + CONVERGE_S) if troubles else deadline
            troubles += await self._mesh_converged(converge_by)
            if troubles:
                raise NotReady(f"not ready after {time.monotonic() - began:.0f} s:\n  " + "\n  ".join(troubles), did)
            if all(pod.key in leave for pod in self.kubelets.unready()):  # none has ended meanwhile
                break
        left = [f"pod {pod.key.pod} was not waited for: {pod.why}" for pod in self.kubelets.unready()]
        return {"revision": self._revision, "remarks": [*remarks, *left], "changes": list(did)}

    async def _pods_ready(self, deadline: float, leave: Collection[Key]) -> list[str]:
        """What pods lack at the deadline, or as soon as one of them will never be ready."""
        async with self._published:
            while waiting := [pod for pod in self.kubelets.unready() if pod.key not in leave]:
                if hopeless := [pod for pod in waiting if pod.hopeless]:
                    return [pod.trouble() for pod in hopeless]
                try:
                    async with asyncio.timeout_at(_loop_time(deadline)):
                        await self._published.wait()
                except TimeoutError:
                    return [pod.trouble() for pod in waiting]
        return []

    async def _mesh_converged(self, deadline: float) -> list[str]:
        """Every agent at the published revision, begun again when that changes meanwhile; what they lack at the end."""
        agents = list(self.kubelets.agents.values())
        while agents:
            revision = self._revision
            asked = [
                asyncio.create_task(agent.converged(revision, deadline), name=f"converged {agent.node}")
                for agent in agents
            ]
            everyone = asyncio.create_task(asyncio.wait(asked), name="everyone converged")
            try:
                async with self._republished() as changed:
                    await asyncio.wait({everyone, changed}, return_when=asyncio.FIRST_COMPLETED)
                if everyone.done():
                    return [task.result() for task in asked if task.result()]
            finally:
                for task in (everyone, *asked):
                    task.cancel()
                await asyncio.gather(everyone, *asked, return_exceptions=True)
        return []

    @contextlib.asynccontextmanager
    async def _republished(self) -> AsyncIterator[asyncio.Task[None]]:
        """A task that is done when the revision is another one."""
        before = self._revision

        async def changed() -> None:
            async with self._published:
                await self._published.wait_for(lambda: self._revision != before)

        task = asyncio.create_task(changed(), name="republished")
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _nothing(documents: Sequence[Document]) -> list[str]:
    """What to say of manifests that are empty."""
    return [] if documents else ["there is no object in these manifests: nothing was changed"]


def _document(row: dict[str, Any]) -> Document:
    return Document(Place(**row["place"]), row["manifest"])


def _loop_time(monotonic: float) -> float:
    """asyncio's clock is the monotonic one, but only by convention."""
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
