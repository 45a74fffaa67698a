"""What a cluster that was taken down must not leave on the machine."""

from __future__ import annotations

from pathlib import Path

from hack.kube import layout, network


def traces() -> list[str]:
    """Everything of a cluster that is there: names of namespaces, directories, mounts, processes."""
    found = [f"network namespace {name}" for name in network.ours()]
    found += [f"directory {layout.STATE}"] if layout.STATE.exists() else []
    hierarchies = Path("/sys/fs/cgroup")
    found += [f"cgroup {path}" for path in [*hierarchies.glob(layout.NAME), *hierarchies.glob(f"*/{layout.NAME}")]]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(layout.STATE) in line]
    return found + [f"process {pid}: {command}" for pid, command in _processes()]


def _processes() -> list[tuple[int, str]]:
    """Those in the cluster's cgroups; a dead one that nobody waited for has no memory and no command."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"/{layout.NAME}" in (directory / "cgroup").read_text()
            command = (directory / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if ours and command:
            found.append((int(directory.name), command))
    return found
