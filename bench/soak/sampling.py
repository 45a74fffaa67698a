"""What is held on a node, as numbers by name: memory, descriptors, map entries, series of metrics. Only looks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ambient.observe import client as admin
from tests.mesh import kernel
from tests.mesh.cluster import NODES, Mesh, open_files

MAPS = ("pods", "enrolled", "listeners", "excluded_ports", "excluded_cidrs", "node_addresses", "exempt", "clients")


def sample(mesh: Mesh) -> dict[str, float]:
    """All of both nodes. What cannot be asked at the moment is left out."""
    found: dict[str, float] = {}
    for node in NODES:
        try:
            agent, engines = mesh.agent_pid(node), mesh.engines(node)
            found |= _process(f"{node} agent", [agent]) | _process(f"{node} engine", engines)
            found[f"{node} metrics"] = len(mesh.metrics(node))
        except (OSError, admin.Unreachable, admin.Refused, AssertionError):
            continue
        found |= {f"{node} map {name}": float(entries(kernel.pins(mesh, node) / "maps" / name)) for name in MAPS}
    return found


def entries(pin: Path) -> int:
    done = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", str(pin)], capture_output=True, check=False)
    rows = json.loads(done.stdout or b"[]")
    return len(rows) if isinstance(rows, list) else 0


def _process(name: str, pids: list[int]) -> dict[str, float]:
    return {
        f"{name} memory": float(sum(map(anonymous, pids))),
        f"{name} descriptors": float(sum(map(open_files, pids))),
    }


def anonymous(pid: int) -> int:
    """Bytes of memory that are the process's alone; what is read of files comes and goes with the machine's load."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"process {pid} has no memory: it is dead")
