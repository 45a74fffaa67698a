"""`down`: undo a lab from what is on disk, whoever died before.

Removes only what the lab recorded or what is inside its own directories; needs no daemon, and ends one first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from ambient.lab import cgroups, linux, network
from ambient.lab.layout import Layout
from ambient.lab.state import State


def down(layout: Layout) -> bool:
    """Remove the lab; False when there is none. May be repeated after a failure: the record goes last."""
    if not layout.state.exists():
        return False
    if layout.state_file.exists():  # else `up` died before it made anything else
        state = State.load(layout.state_file)
        # First every process: agents and the daemon would mend what is taken away below. The daemon is in there too.
        cgroups.kill(Path(state.cgroup))
        for mount in _mounts_below(layout.state):
            linux.umount(mount, linux.MNT_DETACH)
        for netns in state.netns:
            network.remove_netns(netns)
        cgroups.remove(Path(state.cgroup))
        # Removing a mount point also drops the mount from other mount namespaces (pods of other labs hold copies).
        for directory in sorted(layout.state.glob("nodes/*/bpf")):
            directory.rmdir()
    shutil.rmtree(layout.state)
    for parent in (layout.base, layout.base.parent):
        with contextlib.suppress(OSError):  # not empty: another lab's, or an agent's that is none of ours
            os.rmdir(parent)
    return True


def _mounts_below(directory: Path) -> list[Path]:
    """Mount points in a directory, deepest first."""
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((Path(point) for point in points if Path(point).is_relative_to(directory)), reverse=True)
