"""Find a pod's processes, and so its network namespace, from its UID alone: no container runtime is asked."""

from __future__ import annotations

import os
from pathlib import Path

from ambient.capture import cgroups


def locate(cgroup: Path, uid: str) -> int | None:
    """A process of the pod with this UID, found below `cgroup`; None while it has none.

    kubelet names a pod's cgroup after the UID, with dashes (cgroupfs driver) or underscores (systemd driver).
    """
    if not uid:
        raise ValueError("a pod without a UID cannot be found: any cgroup's name would match")
    names = (uid, uid.replace("-", "_"))
    for place, children, _ in os.walk(cgroup):
        if any(_is_pods(os.path.basename(place), name) for name in names):
            for inner in cgroups.below(Path(place)):
                if pids := cgroups.processes(inner):
                    return min(pids)  # the oldest is usually the sandbox's: it outlives containers
            children.clear()
    return None


def _is_pods(directory: str, uid: str) -> bool:
    """Whether the name has this UID as a whole: `pod1` must not be found in `pod12`."""
    before, found, after = directory.partition(uid)
    return bool(found) and not after[:1].isalnum() and not (before[-1:].isalnum() and not before.endswith("pod"))
