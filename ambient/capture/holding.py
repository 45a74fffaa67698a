"""Which sockets a process holds, by inode: whose a connection is, told by the kernel. Only reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

PREFIX = "socket:["


def sockets(pids: Iterable[int], proc: Path = Path("/proc")) -> set[int]:
    """Inodes of the sockets that the processes hold. One that has ended holds none.

    Raises PermissionError without CAP_SYS_PTRACE, where a process forbids to be looked at, as engines do.
    """
    found: set[int] = set()
    for pid in pids:
        try:
            names = os.listdir(proc / str(pid) / "fd")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for name in names:
            try:
                target = os.readlink(proc / str(pid) / "fd" / name)
            except (FileNotFoundError, ProcessLookupError):  # closed meanwhile
                continue
            if target.startswith(PREFIX):
                found.add(int(target.removeprefix(PREFIX).removesuffix("]")))
    return found
