"""Enrolling pods: the composition of pins, maps, routes and sockets into one promise.

A pod is enrolled when its entry in `pods` says so: that single write is the commit, for both directions at once, and
taking the flag back is how it leaves. Everything else is in place before, and stays until after.

Not thread-safe, and blocking for some milliseconds per pod. Knows nothing of Kubernetes, policy or the engine.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ambient.capture import cgroups, netns, routing, sockets
from ambient.capture.abi import Reason, Role
from ambient.capture.direct import Direct
from ambient.capture.enrolment import Enrolment, Tables
from ambient.capture.errors import CaptureError
from ambient.capture.netns import PodNetns
from ambient.capture.pins import Pins
from ambient.model.mesh import CaptureSettings, IPAddress


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What is pinned for one network namespace, perhaps by an agent before this one."""

    cookie: int
    netns_inode: int  # lower 32 bits; 0: not known, the socket lookup is not attached
    capturing: bool
    addresses: tuple[IPAddress, ...]


class Capture:
    """The node's capture. open() once; one at a time per bpffs."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._tables = Tables(pins.maps)
        self._direct = Direct(pins.maps, self._open_netns)
        self._pods: dict[int, Enrolment] = {}
        self._exempt: set[int] = set()
        self._node: frozenset[IPAddress] | None = None  # its own addresses, once told

    @classmethod
    def open(cls, cgroup: Path, bpffs: Path, *, wait: float = 0.0) -> Self:
        """Load the programs, or adopt the ones pinned there and bring them up to date; forget pods that are gone.

        `wait`: seconds to give another agent to let go.

        Raises CaptureError, with everything as it was before.
        """
        capture = cls(Pins.open(cgroup, bpffs, wait))
        for cookie in capture._pins.lookups:
            if not capture._pins.netns_inode(cookie):  # the namespace died while no agent was there to see it
                capture.forget(cookie)
        return capture

    @property
    def direct(self) -> Direct:
        """Connections past the engine."""
        return self._direct

    @property
    def clients_map_fd(self) -> int:
        """The `clients` map, for the engine to write."""
        return self._pins.maps["clients"].fd

    def clear_clients(self, writers: frozenset[int]) -> None:
        """Drop shown clients but those that one of these engines (by pid) wrote: others are dead, as are their
        connections."""
        self._tables.clear_clients(writers)

    def know_node(self, addresses: frozenset[IPAddress]) -> None:
        """What comes from these, the node's own, is left to pods' applications: probes are theirs to answer."""
        self._node = addresses
        self._tables.put_node_addresses(addresses)

    def exempt(self, cgroup: Path) -> None:
        """Never capture what processes directly in this cgroup dial: the engine's.

        Raises CaptureError for a cgroup that could hold anything else.
        """
        if cgroup.samefile(cgroups.root()) or cgroup.samefile(self._pins.cgroup):
            raise CaptureError(f"{cgroup} cannot be exempt: every process on the node could be in it")
        if inner := [each.name for each in cgroup.iterdir() if each.is_dir()]:
            raise CaptureError(f"{cgroup} cannot be exempt: it has cgroups below it, {', '.join(sorted(inner)[:3])}")
        enrolled = {each.netns_inode for each in self.enrolled().values()}
        for pid in cgroups.processes(cgroup):
            if netns.inode_of(pid) in enrolled:
                raise CaptureError(f"{cgroup} cannot be exempt: process {pid} in it belongs to an enrolled pod")
        number = cgroups.identity(cgroup)
        self._tables.exempt(number, alive=lambda: {cgroups.identity(each) for each in cgroups.below(cgroups.root())})
        self._exempt.add(number)

    def enrol(
        self,
        where: PodNetns,
        *,
        addresses: tuple[IPAddress, ...],
        settings: CaptureSettings,
        probe_ports: frozenset[int] = frozenset(),
        listeners: Mapping[Role, socket.socket] | None = None,
    ) -> Mapping[Role, socket.socket]:
        """Capture this pod from now on; its open connections stay as they are.

        `probe_ports`: what comes there from the node itself is left to the application, as a probe wants it.
        Idempotent; call it again to change addresses, settings or listeners. `listeners` are sockets that an earlier
        agent made (whoever has them keeps them); None: those of the last call, or new ones. The caller owns what is
        returned and keeps it open: when the last copy is closed, connections are refused.
        Raises CaptureError; a pod that was not enrolled before then is not.
        """
        before = self._pods.get(where.cookie)
        with contextlib.ExitStack() as undo:
            if listeners is None and before and before.listening():
                listeners = before.listeners
            elif listeners is None:
                listeners = netns.run(where.fd, sockets.listeners)
                for made in listeners.values():
                    undo.callback(made.close)
            wanted = Enrolment.of(where.duplicate(), addresses, settings, probe_ports, listeners)
            undo.callback(self._give_up, wanted, before)
            self._pods[where.cookie] = wanted
            wanted.converge(self._tables, self._pins)
            undo.pop_all()
        if before:
            before.close()
        return dict(listeners)

    def make_sockets(self, cookie: int, count: int) -> list[socket.socket]:
        """Unconnected nonblocking TCP sockets in an enrolled pod's namespace, for the engine to dial with."""
        return netns.run(self._pod(cookie).netns.fd, lambda: sockets.unconnected(count))

    def leave(self, cookie: int) -> None:
        """Stop capturing. Open connections go on, so rule and table stay until forget()."""
        self._tables.stop(cookie)
        self._direct.forget(cookie)
        if pod := self._pods.get(cookie):
            pod.capturing = False

    def forget(self, cookie: int) -> None:
        """Remove everything there is for this pod, its captured connections' routing included. The pod may be gone."""
        self.leave(cookie)
        pod = self._pods.pop(cookie, None)
        where = pod.netns if pod else self._find(cookie)
        if where:
            try:
                netns.run(where.fd, routing.remove)
            finally:
                where.close()
        self._pins.detach_lookup(cookie)
        self._tables.forget(cookie)

    def enrolled(self) -> dict[int, Enrolled]:
        """What is pinned, by cookie: this agent's pods and what an earlier one left."""
        return {
            cookie: Enrolled(cookie, self._pins.netns_inode(cookie), capturing, addresses)
            for cookie, (capturing, addresses) in self._tables.pods().items()
        }

    def counters(self) -> dict[str, int]:
        """How often the programs did what, by reason."""
        return {reason.name.lower(): self._tables.count(reason) for reason in Reason}

    def uncaptured(self, cookie: int) -> dict[str, int]:
        """UDP and ICMP packets the pod has sent past the mesh since it exists: {"udp": n, "icmp": n}."""
        return netns.run(self._pod(cookie).netns.fd, netns.datagrams_sent)

    def verify(self) -> list[str]:
        """Check that everything is as this object left it, mend what is not, and say what that was.

        Raises CaptureError when something cannot be mended, after mending the rest.
        """
        mended = self._pins.verify()
        failures: list[str] = []
        mended += [f"the exemption of cgroup {each} was gone" for each in self._exempt if self._tables.exempt(each)]
        if self._node is not None and self._tables.put_node_addresses(self._node):
            mended.append("the node's own addresses were different")
        for cookie, pod in self._pods.items():
            if not pod.capturing:
                continue  # its listeners are closed by now, and what remains is only for connections that end
            try:
                changes = pod.converge(self._tables, self._pins)
            except CaptureError as error:
                failures.append(f"pod {cookie}: {error}")
                continue
            mended += [f"pod {cookie}: {change}" for change in changes]
        if failures:
            raise CaptureError("; ".join([*failures, *(f"mended: {each}" for each in mended)]))
        return mended

    def close(self) -> None:
        """Let go. What is pinned goes on capturing; the next open() adopts it."""
        for pod in self._pods.values():
            pod.close()
        self._pods.clear()
        self._direct.close()
        self._pins.close()

    def uninstall(self) -> None:
        """Remove everything from the kernel and from the pods, then close."""
        for cookie in {*self.enrolled(), *self._pins.lookups}:
            self.forget(cookie)
        self._direct.close()
        self._pins.remove()

    def _pod(self, cookie: int) -> Enrolment:
        if pod := self._pods.get(cookie):
            return pod
        raise CaptureError(f"no pod with netns cookie {cookie} was enrolled by this agent: enrol it first")

    def _open_netns(self, cookie: int) -> PodNetns | None:
        pod = self._pods.get(cookie)
        return pod.netns.duplicate() if pod else self._find(cookie)

    def _find(self, cookie: int) -> PodNetns | None:
        """The namespace of a pod that an earlier agent enrolled."""
        inode = self._pins.netns_inode(cookie)
        found = netns.by_inode(inode) if inode else None
        if found and found.cookie != cookie:  # inodes are used again
            found.close()
            return None
        return found

    def _give_up(self, wanted: Enrolment, before: Enrolment | None) -> None:
        """Back to what was: the earlier enrolment, or none. The error that led here is the one worth telling."""
        if before is None:
            with contextlib.suppress(CaptureError):
                self.forget(wanted.cookie)
            return
        wanted.close()
        self._pods[before.cookie] = before
        with contextlib.suppress(CaptureError):
            before.converge(self._tables, self._pins)
