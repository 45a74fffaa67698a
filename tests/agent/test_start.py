"""An agent that cannot start, as its user sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ambient.cli import main
from ambient.cli.errors import Exit


@pytest.mark.kernel
def test_where_nothing_can_be_captured_no_engine_is_left(tmp_path: Path) -> None:
    """The BPF file system is none: found out after the engine was started."""
    for name in ("source", "bpffs", "cgroup"):
        (tmp_path / name).mkdir()
    words = ["--node=n", "--metrics-port=0", "--health-port=0", f"--ca-dir={tmp_path}/ca", f"--run-dir={tmp_path}/run"]
    words += [f"--{name}={tmp_path}/{name}" for name in ("source", "bpffs", "cgroup")]
    command = [sys.executable, "-m", "ambient", "agent", *words]
    done = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, check=False, timeout=30
    )  # until the engine ends, too
    assert done.returncode == Exit.NO
    assert " is there\n" in done.stderr, "there was an engine"
    assert done.stderr.endswith(f"{tmp_path}/bpffs is not a BPF file system: mount -t bpf bpf {tmp_path}/bpffs\n")
    assert "Traceback" not in done.stderr


def test_without_root_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    words = [f"--{name}={tmp_path}" for name in ("source", "bpffs", "cgroup")]
    done = CliRunner().invoke(main, ["agent", *words, f"--ca-dir={tmp_path}/ca", f"--run-dir={tmp_path}/run"])
    assert (done.exit_code, "an agent needs root" in done.stderr) == (Exit.LACKING, True)
    assert list(tmp_path.iterdir()) == []
