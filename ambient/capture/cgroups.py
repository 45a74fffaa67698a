"""The cgroup v2 tree: where it is mounted, what lives below a cgroup. Reads only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ambient.capture.errors import CaptureError


def root(mounts: str | None = None) -> Path:
    """Where cgroup v2 is mounted (the first place, in /proc/mounts' order). `mounts` is that file's text."""
    for line in (mounts if mounts is not None else Path("/proc/mounts").read_text()).splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place.encode().decode("unicode_escape"))  # a blank in a path is \040 there
    raise CaptureError("no cgroup2 mount in /proc/mounts: mount -t cgroup2 none /sys/fs/cgroup/unified")


def identity(cgroup: Path) -> int:
    """The id that bpf_get_current_cgroup_id returns for processes directly in it."""
    try:
        return os.stat(cgroup).st_ino
    except OSError as error:
        raise CaptureError(f"cannot find the cgroup {cgroup}: {error.strerror}") from error


def below(cgroup: Path) -> Iterator[Path]:
    """The cgroup and everything under it."""
    for place, _, _ in os.walk(cgroup):
        yield Path(place)


def of(pid: int, tree: Path) -> Path:
    """The cgroup of a process, at or below `tree`; /proc would name it as seen from our own cgroup namespace."""
    for cgroup in below(tree):
        if pid in processes(cgroup):
            return cgroup
    raise CaptureError(f"process {pid} is in no cgroup at or below {tree}: is that the host's cgroup v2 tree?")


def processes(cgroup: Path) -> list[int]:
    """Processes directly in it; none when it has just vanished. One that our pid namespace does not have reads as 0."""
    try:
        return [pid for line in (cgroup / "cgroup.procs").read_text().split() if (pid := int(line))]
    except OSError:  # ENOENT, or ENODEV when it is removed while being read
        return []
