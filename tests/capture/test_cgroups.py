"""What is read of a cgroup."""

from __future__ import annotations

from pathlib import Path

from ambient.capture import cgroups


def test_a_process_of_another_pid_namespace_is_nobody_here(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n17\n0\n")
    assert cgroups.processes(tmp_path) == [17]


def test_a_cgroup_that_has_vanished_has_no_processes(tmp_path: Path) -> None:
    assert cgroups.processes(tmp_path / "gone") == []
