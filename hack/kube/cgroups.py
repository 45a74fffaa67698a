"""The cluster's cgroups in every hierarchy of the machine: v2 alone, or v1 with v2 beside it. Knows nothing of nodes.

The v2 hierarchy is the register of processes: each lives below `ambient-kube` in it, and is killed there. The v1
hierarchies only exist for the limits that kubelet and runc set where v2 does not have the controllers.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ambient.lab import cgroups
from hack.kube import layout
from hack.kube.errors import ClusterError

PAUSE_S = 0.02
EMPTY_S = 10.0  # after SIGKILL; a v1 hierarchy tells nobody when its last process left
CONTROLLERS = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")  # what kubelet limits, where v2 has it


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The mount points on this machine."""

    unified: Path
    v1: tuple[Path, ...]

    @staticmethod
    def of(mounts: str) -> Hierarchies:
        """From the text of /proc/mounts. Raises ClusterError when there is no v2."""
        rows = [line.split(" ") for line in mounts.splitlines()]
        unified = [Path(point) for _, point, kind, *_ in rows if kind == "cgroup2"]
        if not unified:
            raise ClusterError("no cgroup v2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
        return Hierarchies(unified[0], tuple(Path(point) for _, point, kind, *_ in rows if kind == "cgroup"))

    @property
    def top(self) -> Path:
        """Everything of the cluster is in here or below."""
        return self.unified / layout.NAME

    def add(self, *names: str) -> list[Path]:
        """A directory `ambient-kube/name/...` in each hierarchy, v2's first, ready for processes."""
        made = [point.joinpath(layout.NAME, *names) for point in (self.unified, *self.v1)]
        for directory in made:
            directory.mkdir(parents=True, exist_ok=True)
        for point in self.v1:
            if (point / "cpuset.cpus").exists():  # empty in a new directory, and nobody can join that
                _inherit_cpuset(point, names)
        return made

    def delegate(self, directory: Path) -> None:
        """Let what is below a v2 directory be limited. No process may be in the directory itself any more."""
        has = (directory / "cgroup.controllers").read_text().split()
        wanted = [f"+{name}" for name in CONTROLLERS if name in has]
        if wanted:
            (directory / "cgroup.subtree_control").write_text(" ".join(wanted))

    def remove(self, *names: str) -> None:
        """Kill every process in `ambient-kube/name/...` and remove it from every hierarchy; it may be gone already."""
        unified, *others = (point.joinpath(layout.NAME, *names) for point in (self.unified, *self.v1))
        cgroups.kill(unified)
        for directory in (unified, *others):
            _remove_when_empty(directory)


def here() -> Hierarchies:
    return Hierarchies.of(Path("/proc/mounts").read_text())


def pids(directory: Path) -> list[int]:
    """The processes in this very v2 directory; none when it is gone."""
    try:
        return [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []


def _inherit_cpuset(point: Path, names: tuple[str, ...]) -> None:
    directory = point
    for name in (layout.NAME, *names):
        directory /= name
        for file in ("cpuset.cpus", "cpuset.mems"):
            (directory / file).write_text((point / file).read_text())


def _remove_when_empty(top: Path) -> None:
    deadline = time.monotonic() + EMPTY_S
    while top.exists():
        try:
            for directory, _, _ in os.walk(top, topdown=False):
                os.rmdir(directory)
        except OSError as error:  # a process that was killed is not quite gone in this hierarchy
            if time.monotonic() > deadline:
                raise ClusterError(f"{error.filename} could not be removed within {EMPTY_S:.0f} s: {error}") from error
            time.sleep(PAUSE_S)
