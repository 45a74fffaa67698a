"""What the kernel should hold for one pod, and how to get there: compare, write the differences, commit last.

The same comparison enrols, changes settings, and mends what someone removed.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ambient.capture import abi, netns, routing
from ambient.capture.abi import CidrKey, Direction, ListenerKey, PortKey, Reason, Role
from ambient.capture.errors import CaptureError
from ambient.capture.libbpf import Map
from ambient.capture.netns import PodNetns
from ambient.capture.pins import Pins
from ambient.model.mesh import CaptureSettings, IPAddress, address

_PRESENT = bytes(ctypes.c_uint32(1))
_SO_COOKIE = 57


class Tables:
    """The maps, typed: bytes go no further than here."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps

    def pod(self, cookie: int) -> abi.Pod | None:
        value = self._maps["pods"].get(_u64(cookie))
        return abi.Pod.from_buffer_copy(value) if value else None

    def put_pod(self, cookie: int, pod: abi.Pod) -> None:
        self._maps["pods"].put(_u64(cookie), bytes(pod))

    def stop(self, cookie: int) -> None:
        """Take back the commit. A pod whose entry someone removed gets one that says so: else it would stay refused."""
        pod = self.pod(cookie) or (abi.Pod() if self.present(cookie) else None)
        if pod:
            pod.flags &= ~abi.CAPTURE
            self.put_pod(cookie, pod)

    def present(self, cookie: int) -> bool:
        """Whether the pod is known to be enrolled, whatever became of its entry."""
        return self._maps["enrolled"].get(_u64(cookie)) is not None

    def put_present(self, cookie: int) -> None:
        self._maps["enrolled"].put(_u64(cookie), _PRESENT)

    def pods(self) -> dict[int, tuple[bool, tuple[IPAddress, ...]]]:
        """Whether it is captured, and its addresses; one without an entry is held as if captured."""
        found: dict[int, tuple[bool, tuple[IPAddress, ...]]] = {}
        for key in {*self._maps["enrolled"], *self._maps["pods"]}:
            cookie = int.from_bytes(key, "little")
            if pod := self.pod(cookie):
                addresses = tuple(address(bytes(ip.bytes)) for ip in pod.address[: pod.addresses])
                found[cookie] = bool(pod.flags & abi.CAPTURE), addresses
            elif self.present(cookie):
                found[cookie] = True, ()
        return found

    def listener(self, cookie: int, role: Role) -> int:
        """The socket's cookie, 0 when there is none."""
        value = self._maps["listeners"].get(bytes(ListenerKey(cookie, role)))
        return int.from_bytes(value, "little") if value else 0

    def put_listener(self, cookie: int, role: Role, sock: socket.socket) -> None:
        self._maps["listeners"].put(bytes(ListenerKey(cookie, role)), _u64(sock.fileno()))

    def put_exclusions(self, cookie: int, ports: frozenset[bytes], cidrs: frozenset[bytes]) -> bool:
        """Make the pod's exclusions exactly these; whether anything had to change."""
        changed = False
        for name, wanted, owner in (
            ("excluded_ports", ports, PortKey.netns_cookie.offset),
            ("excluded_cidrs", cidrs, CidrKey.netns_cookie.offset),
        ):
            table = self._maps[name]
            there = {key for key in table if key[owner : owner + 8] == _u64(cookie)}
            for key in wanted - there:
                table.put(key, _PRESENT)
            for key in there - wanted:
                table.delete(key)
            changed |= wanted != there
        return changed

    def put_node_addresses(self, addresses: frozenset[IPAddress]) -> bool:
        """Make the node's own addresses exactly these; whether anything had to change."""
        table = self._maps["node_addresses"]
        wanted = {bytes(abi.Ip.of(each)) for each in addresses}
        there = set(table)
        for key in there - wanted:
            table.delete(key)
        for key in wanted - there:
            table.put(key, _PRESENT)
        return wanted != there

    def exempt(self, cgroup: int, alive: Callable[[], set[int]] | None = None) -> bool:
        """Whether it was not there yet. With `alive`, entries of cgroups that are not any more are dropped."""
        table = self._maps["exempt"]
        if alive:
            living = alive()
            for key in table:
                if int.from_bytes(key, "little") not in living:
                    table.delete(key)
        if table.get(_u64(cgroup)):
            return False
        table.put(_u64(cgroup), _PRESENT)
        return True

    def clear_clients(self, writers: frozenset[int]) -> None:
        table = self._maps["clients"]
        for key in table:
            row = table.get(key)
            if row and abi.ClientValue.from_buffer_copy(row).writer not in writers:
                table.delete(key)

    def count(self, reason: Reason) -> int:
        values = self._maps["counters"].get(bytes(ctypes.c_uint32(reason))) or b""
        return sum(int.from_bytes(values[at : at + 8], "little") for at in range(0, len(values), 8))

    def forget(self, cookie: int) -> None:
        self.put_exclusions(cookie, frozenset(), frozenset())
        for role in Role:
            self._maps["listeners"].delete(bytes(ListenerKey(cookie, role)))
        for name in ("enrolled", "pods"):  # the other way round, a pod that has left would be refused in between
            self._maps[name].delete(_u64(cookie))


@dataclass
class Enrolment:
    """One pod as it should be. Owns its namespace's descriptor, not the listeners."""

    netns: PodNetns
    addresses: tuple[IPAddress, ...]
    listeners: Mapping[Role, socket.socket]
    ports: frozenset[bytes]
    cidrs: frozenset[bytes]
    capturing: bool = True

    @classmethod
    def of(
        cls,
        where: PodNetns,
        addresses: tuple[IPAddress, ...],
        settings: CaptureSettings,
        probe_ports: frozenset[int],
        listeners: Mapping[Role, socket.socket],
    ) -> Enrolment:
        cookie = where.cookie
        ports = [
            *(PortKey(cookie, port, Direction.OUTBOUND) for port in settings.exclude_outbound_ports),
            *(PortKey(cookie, port, Direction.INBOUND) for port in settings.exclude_inbound_ports),
            *(PortKey(cookie, port, Direction.PROBED) for port in probe_ports),
        ]
        cidrs = [CidrKey.of(cookie, network) for network in settings.exclude_outbound_cidrs]
        return cls(where, addresses, listeners, frozenset(map(bytes, ports)), frozenset(map(bytes, cidrs)))

    @property
    def cookie(self) -> int:
        return self.netns.cookie

    def close(self) -> None:
        self.netns.close()

    def listening(self) -> bool:
        """Whether every role's socket is still open in this process."""
        return all(role in self.listeners and self.listeners[role].fileno() >= 0 for role in Role)

    def converge(self, tables: Tables, pins: Pins) -> list[str]:
        """Make it so; says what was not. The flag in `pods` comes last, so nothing captures before all is in place."""
        wanted = self._pod()
        changes = []
        current, present = tables.pod(self.cookie), tables.present(self.cookie)
        if current is None:
            changes.append("its entry was gone")
            if not present:  # never enrolled: left alone until the commit. One that was stays refused until then
                waiting = abi.Pod.from_buffer_copy(wanted)
                waiting.flags &= ~abi.CAPTURE
                tables.put_pod(self.cookie, waiting)
        if not present:
            tables.put_present(self.cookie)
            changes.append("its presence was gone")
        if tables.put_exclusions(self.cookie, self.ports, self.cidrs):
            changes.append("its exclusions were different")
        for role in Role:
            sock = self.listeners[role]
            if tables.listener(self.cookie, role) != _cookie_of(sock):
                tables.put_listener(self.cookie, role, sock)
                changes.append(f"its {role.name.lower()} listener was not in place")
        changes += [f"its {each} was gone" for each in netns.run(self.netns.fd, lambda: routing.ensure(self.addresses))]
        if not pins.lookup_attached(self.cookie, self.netns.inode):
            pins.attach_lookup(self.cookie, self.netns.fd)
            changes.append("its socket lookup was not attached")
        if current is None or bytes(current) != bytes(wanted):
            tables.put_pod(self.cookie, wanted)
            if current is not None:
                changes.append("its entry was different")
        return changes

    def _pod(self) -> abi.Pod:
        if not 0 < len(self.addresses) <= abi.POD_ADDRESSES:
            raise CaptureError(f"a pod must have 1 to {abi.POD_ADDRESSES} addresses, this has {len(self.addresses)}")
        if not self.listening():
            raise CaptureError("a listening socket of the pod was closed: enrol it again with listeners=None")
        pod = abi.Pod(abi.CAPTURE if self.capturing else 0, len(self.addresses))
        for at, ip in enumerate(self.addresses):
            pod.address[at] = abi.Ip.of(ip)
        for role, sock in self.listeners.items():
            pod.listener_port[role] = sock.getsockname()[1]
        return pod


def _cookie_of(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
