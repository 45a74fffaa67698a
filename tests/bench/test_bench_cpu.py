"""CPU time and memory, read from a /proc made of files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bench.mesh import cpu

TICK = 1 / os.sysconf("SC_CLK_TCK")


def a_process(proc: Path, pid: int, *, name: str = "engine", user: int = 0, system: int = 0, rss_kb: int = 0) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} ({name}) S 1 1 1 0 -1 4194560 99 0 0 0 {user} {system} 77 88 20 0 3 0 5 0 0\n")
    (folder / "status").write_text(f"Name:\t{name}\nVmHWM:\t  999999 kB\nVmRSS:\t  {rss_kb} kB\n")


def test_user_and_system_time_of_all_processes_are_added(tmp_path: Path) -> None:
    a_process(tmp_path, 10, user=100, system=20)
    a_process(tmp_path, 11, user=3, system=4)
    assert cpu.used([10, 11], tmp_path) == pytest.approx(127 * TICK)


def test_a_name_with_blanks_and_brackets_does_not_shift_the_fields(tmp_path: Path) -> None:
    a_process(tmp_path, 10, name="a) S (b", user=1, system=2)
    assert cpu.used([10], tmp_path) == pytest.approx(3 * TICK)


def test_resident_memory_is_in_megabytes(tmp_path: Path) -> None:
    a_process(tmp_path, 10, rss_kb=1000)
    a_process(tmp_path, 11, rss_kb=500)
    assert cpu.resident([10, 11], tmp_path) == pytest.approx(1.536)


def test_no_processes_use_nothing(tmp_path: Path) -> None:
    assert cpu.used([], tmp_path) == cpu.resident([], tmp_path) == 0


@pytest.mark.parametrize("read", [cpu.used, cpu.resident])
def test_a_process_that_ended_spoils_the_measurement(tmp_path: Path, read: cpu.Reading) -> None:
    with pytest.raises(cpu.ProcessGone, match="process 10 ended"):
        read([10], tmp_path)


def test_pinning_moves_all_threads() -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        cpu.pin([os.getpid()], [one])
        assert thread.native_id is not None
        assert os.sched_getaffinity(thread.native_id) == os.sched_getaffinity(0) == {one}
    finally:
        cpu.pin([os.getpid()], before)
        over.set()
        thread.join()


def test_what_ended_cannot_be_pinned(tmp_path: Path) -> None:
    with pytest.raises(cpu.ProcessGone, match="process 10 ended"):
        cpu.pin([10], [0], tmp_path)
