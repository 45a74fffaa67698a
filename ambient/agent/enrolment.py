"""Which pods of this node are captured, made so: World in, captured netns out. The order of steps is the point here.

The certificate is there before the first connection is captured; a listener's queue holds what arrives before the
engine serves it. A pod stops being captured before it stops being served. One that cannot be captured is named with the
reason and tried again at the next change and at every tick.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ambient.capture import find, netns
from ambient.capture.abi import Role
from ambient.capture.capture import Capture
from ambient.capture.errors import CaptureError
from ambient.capture.netns import PodNetns
from ambient.dataplane.desired import PodState
from ambient.dataplane.engines import Engines
from ambient.dataplane.pods import LocalPod, LocalPods, context_id
from ambient.identity.store import CertificateStore
from ambient.model.mesh import Identity, Workload
from ambient.model.world import World

T = TypeVar("T")
log = logging.getLogger(__name__)

CERTIFICATE_WAIT = 2.0  # seconds; then the pod is captured without one, and its traffic refused until it comes


class InOrder(Protocol):
    """Runs blocking work of the capture beside the event loop, one piece at a time."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


@dataclass(slots=True)
class Captured:
    pod: LocalPod
    workload: Workload  # as it was when the capture was last made true
    netns: int  # inode
    listeners: Mapping[Role, socket.socket]


class Enrolment:
    def __init__(
        self,
        node: str,
        cgroup: Path,
        capture: Capture,
        engines: Engines,
        store: CertificateStore,
        pods: LocalPods,
        in_order: InOrder,
        given: Callable[[str], PodNetns | None] = lambda _: None,
        changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`given(uid)`: the pod's network namespace, where it is known without looking for its processes; not ours.

        `changed(key)`: a workload is captured from now on, or is about to be no more. See cookie_of().
        """
        self._node, self._cgroup = node, cgroup
        self._capture, self._engines, self._store, self._pods = capture, engines, store, pods
        self._in_order, self._given, self._changed = in_order, given, changed
        self._captured: dict[str, Captured] = {}  # by workload key
        self._wanted: frozenset[Identity] = frozenset()
        self._leaving: dict[int, int] = {}  # cookies with connections that may still be open, and their context
        self._inherited: dict[int, dict[Role, socket.socket]] = {}  # an earlier agent's listeners, by cookie
        self._inherited_contexts: Mapping[int, int] = {}
        self._alone = asyncio.Lock()  # a change and a tick must not let go of the same pod
        self._issued = asyncio.Event()  # some certificate came
        self.failures: dict[str, str] = {}  # by workload key: why it is not captured

    def inherit(self, listeners: dict[int, dict[Role, socket.socket]], contexts: Mapping[int, int]) -> None:
        """Listening sockets the engine kept from an earlier agent: used again, so that no connection is lost.

        `contexts`: what their tunnels are made with. Both by cookie.
        """
        self._inherited, self._inherited_contexts = listeners, contexts

    def certificate(self, identity: Identity) -> None:
        """A certificate came: who waits for it goes on."""
        log.debug("certificate for %s", identity)
        self._issued.set()

    def captured(self) -> list[Workload]:
        return [captured.workload for captured in self._captured.values()]

    def is_captured(self, key: str) -> bool:
        return key in self._captured

    def cookie_of(self, key: str) -> int | None:
        """Of the network namespace in which the workload is captured."""
        captured = self._captured.get(key)
        return captured.pod.cookie if captured is not None else None

    def open(self, key: str) -> PodNetns:
        """The network namespace in which a captured pod is; the caller closes it. Raises CaptureError."""
        return netns.of_socket(self._captured[key].listeners[Role.OUTBOUND])

    @property
    def leaving(self) -> int:
        """How many pods are captured no more, and may have connections that were."""
        return len(self._leaving)

    async def moved(self) -> bool:
        """Is a captured pod in another network namespace now (its sandbox was made anew)? Then it is let go."""
        async with self._alone:
            return await self._let_go_of_moved()

    async def _let_go_of_moved(self) -> bool:
        found = False
        processes = await self._find(captured.workload for captured in self._captured.values())
        for key, captured in list(self._captured.items()):
            pid = processes.get(captured.workload.uid)
            inode = netns.inode_of(pid) if pid is not None else None
            if inode is not None and inode != captured.netns:
                log.warning("pod %s has a new network namespace: capturing that one", key)
                await self._leave(self._captured.pop(key))
                found = True
        return found

    async def _find(self, workloads: Iterable[Workload]) -> dict[str, int]:
        """Processes, by pod UID, of those whose network namespace is not given."""
        uids = [each.uid for each in workloads if self._given(each.uid) is None]
        return await self._in_order(functools.partial(find.processes, self._cgroup, uids)) if uids else {}

    def state(self, key: str) -> str:
        """For people: captured, or why not; empty for what is not this node's or not enrolled."""
        if key in self._captured:
            return "captured"
        return f"waiting: {self.failures[key]}" if key in self.failures else ""

    async def converge(self, world: World, *, nobody: bool = False) -> None:
        """Make this node's capture what the World says. What fails is kept in `failures`, not raised.

        `nobody`: whatever it says, because the mesh is being taken off this node.
        """
        async with self._alone:
            await self._converge(world, () if nobody else world.workloads_on(self._node))

    async def _converge(self, world: World, workloads: Iterable[Workload]) -> None:
        wanted = {w.key: w for w in workloads if w.enrolled and not w.host_network and w.addresses}
        self._wanted = frozenset(w.identity(world.mesh.trust_domain) for w in wanted.values())
        self._store.want(self._wanted)
        for key, captured in list(self._captured.items()):
            workload = wanted.get(key)
            if workload is None or workload.uid != captured.workload.uid or self._has_another(captured):
                await self._leave(self._captured.pop(key))
        processes = await self._find(w for key, w in wanted.items() if key not in self._captured)
        failures: dict[str, str] = {}
        for key, workload in sorted(wanted.items()):
            try:
                await self._enrol(workload, world.mesh.trust_domain, processes.get(workload.uid))
            except (CaptureError, OSError) as error:
                failures[key] = str(error)
                if self.failures.get(key) != str(error):
                    log.warning("pod %s is not captured: %s", key, error)
        self.failures = failures
        await self._leave_inherited()
        self._forget_keys()

    async def idle(self, cookie: int) -> None:
        """The last connection of a pod that left is over: nothing needs its routes any more."""
        async with self._alone:  # until it is forgotten, a change would find it pinned and let it go once more
            if self._leaving.pop(cookie, None) is not None:
                self._forget_keys()
                await self._in_order(functools.partial(self._capture.forget, cookie))

    def _forget_keys(self) -> None:
        """An identity's key goes with its last pod; a pod that left may need it until its last connection is over."""
        captured = {captured.pod.identity for captured in self._captured.values()}
        self._engines.keep_contexts(
            frozenset(context_id(each) for each in self._wanted | captured) | frozenset(self._leaving.values())
        )

    def _has_another(self, captured: Captured) -> bool:
        """Is the pod in another network namespace now, by what is given?"""
        given = self._given(captured.workload.uid)
        return given is not None and given.cookie != captured.pod.cookie

    async def _enrol(self, workload: Workload, trust_domain: str, pid: int | None) -> None:
        known = self._captured.get(workload.key)
        if known is not None and _same_capture(known.workload, workload):
            known.workload = workload
            return
        identity = workload.identity(trust_domain)
        with contextlib.closing(self._open(workload, known, pid)) as space:
            await self._certificate(identity)
            listeners = known.listeners if known else self._inherited.pop(space.cookie, None)
            self._leaving.pop(space.cookie, None)
            pod = LocalPod(space.cookie, workload.key, workload.uid, identity)
            self._pods.add(pod)  # before the first question about it can come
            listeners = await self._in_order(
                functools.partial(
                    self._capture.enrol,
                    space,
                    addresses=workload.addresses,
                    settings=workload.capture,
                    probe_ports=workload.probe_ports,
                    listeners=listeners,
                )
            )
        family = listeners[Role.OUTBOUND].family
        self._engines.add_pod(PodState(pod.cookie, family, context_id(identity), listeners))
        self._captured[workload.key] = Captured(pod, workload, space.inode & 0xFFFFFFFF, listeners)
        self._changed(workload.key)

    def _open(self, workload: Workload, known: Captured | None, pid: int | None) -> PodNetns:
        if (given := self._given(workload.uid)) is not None:
            return given.duplicate()
        if known is not None:
            return netns.of_socket(known.listeners[Role.OUTBOUND])
        if pid is None:
            raise CaptureError(f"no process below {self._cgroup} belongs to pod uid {workload.uid}: has it started?")
        return netns.open(pid)

    async def _certificate(self, identity: Identity) -> None:
        try:
            async with asyncio.timeout(CERTIFICATE_WAIT):
                while self._store.get(identity) is None:
                    await self._issued.wait()
                    self._issued.clear()
        except TimeoutError:
            log.warning(
                "no certificate for %s after %g s: capturing, its traffic waits for it", identity, CERTIFICATE_WAIT
            )

    async def _leave(self, captured: Captured) -> None:
        cookie = captured.pod.cookie
        self._changed(captured.pod.workload)
        await self._in_order(functools.partial(self._capture.leave, cookie))
        self._leaving[cookie] = context_id(captured.pod.identity)
        self._engines.leave_pod(cookie)
        self._pods.remove(cookie)
        for sock in captured.listeners.values():
            sock.close()

    async def _leave_inherited(self) -> None:
        """What an earlier agent captured and the World no longer wants (also pods whose netns is gone)."""
        for listeners in self._inherited.values():
            for sock in listeners.values():
                sock.close()
        self._inherited = {}
        ours = {captured.pod.cookie for captured in self._captured.values()}
        for cookie in set(self._capture.enrolled()) - ours - self._leaving.keys():
            if self.failures:
                return  # it may be one of those that could not be found just now: fail closed
            await self._in_order(functools.partial(self._capture.leave, cookie))
            self._leaving[cookie] = self._inherited_contexts.get(cookie, 0)
            self._engines.leave_pod(cookie)


def _same_capture(old: Workload, new: Workload) -> bool:
    return (
        old.uid == new.uid
        and old.addresses == new.addresses
        and old.capture == new.capture
        and old.probe_ports == new.probe_ports
        and (old.service_account == new.service_account)
    )
