"""The bench itself: a short one measures what it is asked for and leaves nothing, also when it is ended."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ambient.lab import Lab
from bench.mesh import machine, modes

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.alone,
    pytest.mark.skipif(
        any(shutil.which(program) is None for program in machine.PROGRAMS), reason="needs hack/bench-packages.txt"
    ),
]
ROOT = Path(__file__).parents[2]
SHORT = "--rounds 1 --seconds 1 --modes none,ambient,ambient_same"


def bench(tmp_path: Path, options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", *SHORT.split(), *options.split(), "--output", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def nothing_is_left() -> bool:
    labs = [Lab(name).layout for name in (modes.MESH_LAB, modes.BARE_LAB)]
    return not any(layout.state.exists() or layout.cgroup.exists() for layout in labs)


def test_a_short_bench_measures_writes_draws_and_cleans_up(tmp_path: Path) -> None:
    with bench(tmp_path, "--only round_trip_1,connections_16") as child:
        said, _ = child.communicate(timeout=100)
    assert child.returncode == 0, said
    found = json.loads((tmp_path / "mesh.json").read_text())
    assert set(found["rounds"]) == {"none", "ambient", "ambient_same"}
    for mode, by_load in found["rounds"].items():
        assert {load: len(rounds) for load, rounds in by_load.items()} == {"round_trip_1": 1, "connections_16": 1}
        for load, (only,) in by_load.items():
            assert only["work"] > 0, (mode, load)
            assert (only["proxy_cpu_s"] > 0) is (mode == "ambient"), (mode, load)
    assert found["carried"] == {"ambient": ["tunnel"], "ambient_same": ["direct"]}
    assert "64-byte round trips, 1 connection: p50" in said
    assert nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_bench_that_is_ended_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    with bench(tmp_path, "--only bulk_1") as child:
        assert child.stdout is not None
        said = next((line for line in child.stdout if "none: bulk_1" in line), "")
        assert said, "it ended before it measured"
        child.send_signal(number)
        child.communicate(timeout=60)
    assert child.returncode
    assert nothing_is_left()
    assert not (tmp_path / "mesh.json").exists()
