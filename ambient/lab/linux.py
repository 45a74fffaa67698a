"""The few system calls Python 3.11 lacks: setns, unshare, mount. Each raises OSError naming call and object."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 1 << 19
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def setns(fd: int, kind: int) -> None:
    _checked("setns", _libc.setns(fd, kind))


def unshare(flags: int) -> None:
    _checked("unshare", _libc.unshare(flags))


def mount(source: str, target: Path, kind: str = "", flags: int = 0) -> None:
    result = _libc.mount(source.encode(), str(target).encode(), kind.encode() or None, ctypes.c_ulong(flags), None)
    _checked(f"mount {source} on {target}", result)


def umount(target: Path, flags: int = 0) -> None:
    _checked(f"umount {target}", _libc.umount2(str(target).encode(), flags))


@contextlib.contextmanager
def inside_netns(path: Path) -> Iterator[None]:
    """The calling thread is in another network namespace for the `with` block; sockets made there stay there.

    Nothing may be awaited inside: the thread would take other tasks along.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
