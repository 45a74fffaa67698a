"""The lab's cgroups: make, fill, kill, remove. Knows nothing of pods; touches only the directories it is given."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from ambient.lab.errors import Environment

KILL_S = 10.0  # SIGKILL is immediate but for a process stuck in the kernel; then the user must look


def join(cgroup: Path, pid: int = 0) -> None:
    """Move a process (0: the caller) into the cgroup."""
    (cgroup / "cgroup.procs").write_text(str(pid))


def kill(cgroup: Path) -> None:
    """Kill every process in the subtree and return when none is left; a cgroup that is gone has none."""
    try:
        (cgroup / "cgroup.kill").write_text("1")
    except FileNotFoundError:
        if cgroup.exists():
            raise Environment(f"{cgroup} has no cgroup.kill: a lab needs Linux 5.14 or newer") from None
        return
    _until_empty(cgroup)


def _until_empty(cgroup: Path) -> None:
    deadline = time.monotonic() + KILL_S
    fd = os.open(cgroup / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)  # the kernel's notice that the file changed
        while b"populated 0" not in os.pread(fd, 4096, 0):
            left = deadline - time.monotonic()
            if left <= 0:
                pids = [pid for file in cgroup.rglob("cgroup.procs") for pid in file.read_text().split()]
                raise Environment(
                    f"processes {' '.join(pids)} in {cgroup} did not die of SIGKILL within {KILL_S:.0f} s"
                )
            poller.poll(left * 1000)
    finally:
        os.close(fd)


def remove(cgroup: Path) -> None:
    """Remove the (empty) subtree, deepest first."""
    if not cgroup.exists():
        return
    for directory, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(directory)
