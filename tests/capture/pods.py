"""A node and its pods, as small as they can be: namespaces, veths, cgroups, and functions run as a pod's process."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from ambient.capture import cgroups, netns
from ambient.capture.libbpf import Link, Map
from tests import slowness

PREFIX = "ambcap"
ETH0 = 77  # the index of a pod's interface: given, because some kernels put tunnels of theirs in every namespace
DEADLINE = slowness.seconds(10.0)
KERNEL_HAS_IPV6 = Path("/proc/sys/net/ipv6").exists()
T = TypeVar("T")
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


def make_netns(name: str, *commands: str) -> None:
    """A namespace whose lo is up, and what else `ip` is to do in it: few processes, since every test makes some."""
    subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    ip_in(name, "link set lo up", *commands)


def ip_in(name: str, *commands: str) -> None:
    """All of it by one `ip`."""
    subprocess.run(
        ["ip", "-n", name, "-batch", "-"], input="\n".join(commands), check=True, capture_output=True, text=True
    )


class Remote:
    """A function that runs in a process of its own, and what it sends: its messages, at last its result."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], enter: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        self.pid = os.fork()
        if self.pid == 0:
            _close_all_but(theirs.fileno())  # a copy would keep alive what the test closes
            try:
                enter()
                answer = (True, function(theirs, *arguments))
            except BaseException as error:  # noqa: BLE001 - told to the test's process
                answer = (False, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            theirs.send(pickle.dumps(answer))
            os._exit(0)
        theirs.close()

    def receive(self) -> Any:
        """The next message; raises when the function has failed."""
        ready, _, _ = select.select([self._channel], [], [], DEADLINE)
        if not ready:
            raise TimeoutError("the pod's process said nothing in time")
        data = self._channel.recv(1 << 20)
        if not data:
            raise EOFError("the pod's process has ended")
        worked, value = pickle.loads(data)
        if not worked:
            raise AssertionError(value)
        return value

    def fileno(self) -> int:
        """For select: readable when a message is there."""
        return self._channel.fileno()

    def waiting(self) -> bool:
        """Whether a message is there now."""
        return bool(select.select([self._channel], [], [], 0)[0])

    def tell(self, value: Any) -> None:
        self._channel.send(pickle.dumps(value))

    def send_fd(self, fd: int) -> None:
        socket.send_fds(self._channel, [b"fd"], [fd])

    def finish(self) -> None:
        """End it; to do so again is harmless."""
        if self.pid:
            self._channel.close()
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


def tell(channel: socket.socket, value: Any) -> None:
    channel.send(pickle.dumps((True, value)))


def told(channel: socket.socket) -> Any:
    return pickle.loads(channel.recv(1 << 20))


def told_fd(channel: socket.socket) -> int:
    return socket.recv_fds(channel, 16, 1)[1][0]


class Node:
    """A router namespace that its pods' veths end in, and a cgroup above its pods'."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.name = f"{PREFIX}{os.getpid() % 10000}n{self.number}"
        self.cgroup = cgroups.root() / self.name
        self.cgroup.mkdir()
        self.pods: list[Pod] = []
        self._remotes: list[Remote] = []
        make_netns(self.name)
        forwarding = "net.ipv4.ip_forward=1" + " net.ipv6.conf.all.forwarding=1" * KERNEL_HAS_IPV6
        # Or a router asks for nobody's address before its own fe80:: is known to be unique, two seconds later.
        unique = " net.ipv6.conf.default.accept_dad=0" * KERNEL_HAS_IPV6
        sh(f"ip netns exec {self.name} sysctl -qw {forwarding}{unique}")

    def pod(self, *, ipv6: bool = True) -> Pod:
        pod = Pod(self, len(self.pods) + 1, ipv6=ipv6)
        self.pods.append(pod)
        return pod

    def start(self, function: Callable[..., Any], *arguments: Any) -> Remote:
        """Run function(channel, *arguments) outside every pod, in the node's namespace."""
        remote = Remote(function, arguments, lambda: _enter(f"/run/netns/{self.name}"))
        self._remotes.append(remote)
        return remote

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _result(self.start(function, *arguments))

    def ip(self, command: str) -> str:
        return sh(f"ip -n {self.name} {command}")

    def close(self) -> None:
        for remote in self._remotes:
            remote.finish()
        for pod in self.pods:
            pod.close()
        sh(f"ip netns del {self.name}")
        _remove_cgroup(self.cgroup)


class Pod:
    """One pod: `v4`, `v6` are its addresses, `gateway4`, `gateway6` the node's next to it."""

    def __init__(self, node: Node, number: int, *, ipv6: bool) -> None:
        ipv6 = ipv6 and KERNEL_HAS_IPV6
        self.node = node
        self.name = f"{node.name}p{number}"
        self.link = f"v{number}"  # the node's end
        self.uid = f"0000{number:04d}-aaaa-bbbb-cccc-{os.getpid():012d}"
        self.v4, self.gateway4 = ip_address(f"10.77.{number}.2"), ip_address(f"10.77.{number}.1")
        self.v6, self.gateway6 = ip_address(f"fd77:{number}::2"), ip_address(f"fd77:{number}::1")
        self.addresses = (self.v4, self.v6) if ipv6 else (self.v4,)
        self.neighbours = {self.link: self.gateway4}  # the node's ends of the pod's interfaces
        self.cgroup = node.cgroup / f"pod{self.uid}"
        self.cgroup.mkdir()
        self._remotes: list[Remote] = []
        make_netns(self.name)
        if not ipv6 and KERNEL_HAS_IPV6:
            sh(f"ip netns exec {self.name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
        ours, theirs = [f"addr add {self.v4}/24 dev eth0"], [f"addr add {self.gateway4}/24 dev {self.link}"]
        routes = [f"route add default via {self.gateway4}"]
        if KERNEL_HAS_IPV6:
            theirs.append(f"addr add {self.gateway6}/64 dev {self.link} nodad")
        if ipv6:
            ours.append(f"addr add {self.v6}/64 dev eth0 nodad")
            routes.append(f"route add ::/0 via {self.gateway6}")
        veth = f"link add {self.link} type veth peer name eth0 index {ETH0} netns {self.name}"
        ip_in(node.name, veth, *theirs, f"link set {self.link} up")
        ip_in(self.name, "link set eth0 up", *ours, *routes)
        self.netns = netns.open(f"/run/netns/{self.name}")

    def attach(self, interface: str) -> None:
        """One more interface, as meta CNI plugins give: to the node, on a network of its own."""
        number = len(self.neighbours)
        link, neighbour = f"{self.link}x{number}", ip_address(f"10.78.{number}.1")
        self.node.ip(f"link add {link} type veth peer name {interface} netns {self.name}")
        self.node.ip(f"addr add {neighbour}/24 dev {link}")
        self.node.ip(f"link set {link} up")
        self.ip(f"link set {interface} up")
        self.ip(f"addr add 10.78.{number}.2/24 dev {interface}")
        self.neighbours[link] = neighbour

    def start(self, function: Callable[..., Any], *arguments: Any) -> Remote:
        """Run function(channel, *arguments) as a process of the pod."""
        remote = self._start(self.cgroup, function, *arguments)
        self._remotes.append(remote)
        return remote

    def start_in(self, cgroup: Path, function: Callable[..., Any], *arguments: Any) -> Remote:
        """As start(), by a process of another cgroup that has entered the pod's namespace."""
        remote = self._start(cgroup, function, *arguments)
        self._remotes.append(remote)
        return remote

    def run_in(self, cgroup: Path, function: Callable[..., Any], *arguments: Any) -> Any:
        """As run(), by a process of another cgroup that has entered the pod's namespace."""
        return _result(self._start(cgroup, function, *arguments))

    def _start(self, cgroup: Path, function: Callable[..., Any], *arguments: Any) -> Remote:
        def enter() -> None:
            join(cgroup)
            _enter(f"/run/netns/{self.name}")

        return Remote(function, arguments, enter)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of function(channel, *arguments), run as a process of the pod."""
        remote = self.start(function, *arguments)
        try:
            return remote.receive()
        finally:
            self._remotes.remove(remote)
            remote.finish()

    def ip(self, command: str) -> str:
        return sh(f"ip -n {self.name} {command}")

    def mac(self) -> str:
        return str(json.loads(self.ip("-j link show eth0"))[0]["address"])

    def link_local(self) -> str:
        """eth0's fe80:: address, once duplicate address detection is over."""

        def ready() -> str | None:
            for interface in json.loads(self.ip("-j -6 addr show dev eth0 scope link -tentative")):
                for each in interface.get("addr_info", ()):
                    if "local" in each:
                        return str(each["local"])
            return None

        return eventually(ready)

    def close(self) -> None:
        for remote in self._remotes:
            remote.finish()
        self.netns.close()
        sh(f"ip netns del {self.name}")
        _remove_cgroup(self.cgroup)


def join(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def _close_all_but(kept: int) -> None:
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _result(remote: Remote) -> Any:
    try:
        return remote.receive()
    finally:
        remote.finish()


def _enter(path: str) -> None:
    with open(path) as handle:
        if _libc.setns(handle.fileno(), netns.CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")


def _remove_cgroup(cgroup: Path) -> None:
    for inner in sorted(cgroups.below(cgroup), key=lambda each: -len(each.parts)):
        inner.rmdir()


def mount_bpffs(where: Path) -> None:
    where.mkdir()
    sh(f"mount -t bpf bpf {where}")


def unmount_bpffs(where: Path) -> None:
    sh(f"umount {where}")
    shutil.rmtree(where)


@contextlib.contextmanager
def unforwarded(node: Node) -> Iterator[None]:
    """The node drops what its pods send each other, silently; TCP sends it again later."""
    settings = ["net.ipv4.ip_forward", *["net.ipv6.conf.all.forwarding"] * KERNEL_HAS_IPV6]
    try:
        for each in settings:
            sh(f"ip netns exec {node.name} sysctl -qw {each}=0")
        yield
    finally:
        for each in settings:
            sh(f"ip netns exec {node.name} sysctl -qw {each}=1")


def eventually(attempt: Callable[[], T | None]) -> T:
    """The first true result; for what the kernel does in its own time and announces to nobody."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if result := attempt():
            return result
        select.select([], [], [], 0.02)
    raise TimeoutError("it did not come about in time")


def delete_entry(bpffs: Path, name: str, key: int | bytes) -> None:
    """As an enemy or a fool with root would: behind the agent's back."""
    with Map.pinned(bpffs / "ambient-v1" / "maps" / name) or _missing(name) as table:
        table.delete(key if isinstance(key, bytes) else key.to_bytes(8, "little"))


def detach(bpffs: Path, link: str) -> None:
    """As `bpftool link detach`, whoever holds the link."""
    with Link.pinned(bpffs / "ambient-v1" / link) or _missing(link) as pinned:
        pinned.detach()


def _missing(name: str) -> Map:
    raise AssertionError(f"nothing is pinned as {name}")
