"""Find pods' processes, and so their network namespaces, from their UIDs alone: no container runtime is asked.

kubelet names a pod's cgroup after the UID: podUID with the cgroupfs driver, with the systemd driver
kubepods-QOS-podUID.slice, dashes turned into underscores. Pods may come and go meanwhile: what vanishes is not found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ambient.capture import cgroups


def processes(cgroup: Path, uids: Iterable[str]) -> dict[str, int]:
    """A process of each pod, by UID, found below `cgroup` in one walk; without the pods that have none (yet)."""
    wanted = {uid.replace("_", "-"): uid for uid in uids}
    if "" in wanted:
        raise ValueError("a pod without a UID cannot be found: any cgroup's name would match")
    found: dict[str, int] = {}
    for place, children, _ in os.walk(cgroup):
        if len(found) == len(wanted):
            break
        uid = wanted.get(_uid_in(os.path.basename(place)))
        if uid is None:
            continue
        children.clear()
        pid = _first_process(Path(place))
        if pid is not None:
            found[uid] = pid
    return found


def _uid_in(directory: str) -> str:
    """The UID in the name of a pod's cgroup, with dashes; other names give what is no pod's."""
    _, pod, rest = directory.rpartition("pod")
    return rest.removesuffix(".slice").replace("_", "-") if pod else ""


def _first_process(cgroup: Path) -> int | None:
    """The oldest of the first cgroup that has any: usually the sandbox's, which outlives containers."""
    for inner in cgroups.below(cgroup):
        if pids := cgroups.processes(inner):
            return min(pids)
    return None
