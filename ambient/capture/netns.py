"""Network namespaces: open a pod's, name it by its cookie, run a function inside it.

The cookie is the kernel's own 64-bit name of a namespace, unique until the machine restarts. Only one thread of its own
ever changes namespace: the calling thread, and so the process, never leaves its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ambient.capture.errors import CaptureError

SO_NETNS_COOKIE = 71  # asm-generic/socket.h; Linux 5.14
SIOCGSKNS = 0x894C  # linux/sockios.h: a descriptor of the namespace a socket was made in
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PodNetns:
    """An open network namespace; it lives as long as `fd`, so close() it when done."""

    cookie: int
    path: str  # where it was found: for messages
    fd: int
    inode: int

    def close(self) -> None:
        os.close(self.fd)

    def duplicate(self) -> PodNetns:
        return PodNetns(self.cookie, self.path, os.dup(self.fd), self.inode)


def open(where: int | str | Path) -> PodNetns:
    """Open the namespace of a process id, or at a path (/proc/PID/ns/net, /run/netns/NAME)."""
    path = f"/proc/{where}/ns/net" if isinstance(where, int) else str(where)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CaptureError(f"cannot open the network namespace {path}: {error.strerror}; is the pod gone?") from error
    return of_descriptor(fd, path)


def of_descriptor(fd: int, path: str) -> PodNetns:
    """The namespace that this descriptor is of; it takes it over. `path`: what to call it."""
    try:
        cookie = run(fd, _own_cookie)
        return PodNetns(cookie, path, fd, os.fstat(fd).st_ino)
    except BaseException:
        os.close(fd)
        raise


def of_socket(sock: socket.socket) -> PodNetns:
    """The namespace a socket was made in, though neither a process nor a path may lead there."""
    try:
        fd = fcntl.ioctl(sock, SIOCGSKNS)
    except OSError as error:
        raise CaptureError(f"cannot open a socket's network namespace: {error.strerror}") from error
    return of_descriptor(fd, f"the namespace of socket {sock.fileno()}")


def inode_of(pid: int) -> int | None:
    """Which namespace a process is in (the inode's lower 32 bits); None when it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino & 0xFFFFFFFF
    except OSError:  # ended meanwhile, or a kernel thread's
        return None


def by_inode(inode: int) -> PodNetns | None:
    """The namespace with this inode (its lower 32 bits), if a process is in it or it has a name under /run/netns."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and inode_of(int(process.name)) == inode:
            return open(int(process.name))
    for name in Path("/run/netns").glob("*"):
        if name.stat().st_ino & 0xFFFFFFFF == inode:
            return open(name)
    return None


def run(fd: int, function: Callable[[], T]) -> T:
    """Call function() in that namespace, on the one thread that goes places; an OSError of it is a CaptureError here.

    Not for a function that calls run() itself: it would wait for its own thread.
    """
    return _thread().submit(_inside, fd, function).result()


def _inside(fd: int, function: Callable[[], T]) -> T:
    """Comes home afterwards: a thread that stayed would keep a deleted pod's namespace alive."""
    try:
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:  # no descriptor left: then it would not find home
        raise CaptureError(f"cannot enter a network namespace: {error.strerror}") from error
    try:
        _enter(fd)
        try:
            return function()
        except OSError as error:
            raise CaptureError(f"in a pod's network namespace: {error}") from error
        finally:
            _enter(home)
    except CaptureError:
        _thread.cache_clear()  # it may not have come home: the next call gets another thread
        raise
    finally:
        os.close(home)


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "in-netns")


def has_ipv6() -> bool:
    """Whether the calling thread's namespace knows IPv6, in use or not: the kernel's matter."""
    return Path("/proc/thread-self/net/if_inet6").exists()


def loopback_has_ipv6() -> bool:
    """Whether lo of the calling thread's namespace takes IPv6 routes: its owner's matter, at any time."""
    setting = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")  # shows the reading thread's namespace
    return setting.exists() and setting.read_text().strip() == "0"


def datagrams_sent() -> dict[str, int]:
    """UDP and ICMP packets that left the calling thread's namespace: what capture does not see."""
    sent = {"udp": 0, "icmp": 0}
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        kind = names.partition(":")[0].lower()
        counts = dict(zip(names.split()[1:], values.split()[1:], strict=True))
        if kind in sent:
            sent[kind] += int(counts.get("OutDatagrams", counts.get("OutMsgs", 0)))
    try:
        for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines():
            name, value = line.split()
            if name in ("Udp6OutDatagrams", "Icmp6OutMsgs"):
                sent[name[: name.index("6")].lower()] += int(value)
    except FileNotFoundError:  # a kernel without IPv6
        pass
    return sent


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise CaptureError(f"cannot enter a network namespace: {os.strerror(number)}; CAP_SYS_ADMIN is needed")


def _own_cookie() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        try:
            return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
        except OSError as error:
            raise CaptureError("the kernel has no SO_NETNS_COOKIE: Linux 5.14 or newer is needed") from error
