"""Figures to one table: a row for each figure, a column for each size. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from bench.control.measure import Figures
from bench.mesh.figures import number

ROWS: Mapping[str, str] = {
    "resources": "resources",
    "bytes_mb": "all of them, encoded, MB",
    "snapshot_s": "first snapshot, CPU s",
    "control_ready_s": "control plane ready, s",
    "control_alone_mb": "control plane without agents, resident MB",
    "control_mb": "control plane with {agents} agents, resident MB",
    "agents_synced_s": "{agents} agents hold everything, s",
    "agent_ready_s": "one agent decodes everything, CPU s",
    "agent_world_mb": "  and holds it in, MB",
    "real_agent_ready_s": "a whole agent from its start to ready, s",
    "real_agent_mb": "  resident MB",
    "pod_advance_ms": "one pod changes: next snapshot, CPU ms",
    "pod_tell_ms": "  {agents} streams made to say it, CPU ms",
    "pod_cpu_ms": "one pod changes: whole control plane, CPU ms",
    "pod_p50_ms": "  reaches an agent, median ms",
    "pod_p99_ms": "  reaches an agent, p99 ms",
    "policy_advance_ms": "one policy changes: next snapshot, CPU ms",
    "policy_tell_ms": "  {agents} streams made to say it, CPU ms",
    "policy_cpu_ms": "one policy changes: whole control plane, CPU ms",
    "policy_p50_ms": "  reaches an agent, median ms",
    "policy_p99_ms": "  reaches an agent, p99 ms",
    "change_cpu_ms": "one change: whole control plane, CPU ms",
    "change_p50_ms": "  reaches an agent, the command's time included, median ms",
    "change_p99_ms": "  reaches an agent, the command's time included, p99 ms",
}


def table(columns: Mapping[str, Figures], agents: int) -> Table:
    """Rows that were not measured are left out."""
    found = Table(title=f"medians, by pods in the mesh; {agents} simulated agents")
    found.add_column("")
    for name in columns:
        found.add_column(name, justify="right")
    for name, title in ROWS.items():
        cells = [number(figures[name]) if name in figures else "" for figures in columns.values()]
        if any(cells):
            found.add_row(title.format(agents=agents), *cells)
    return found
