"""What processes have used, from /proc: CPU time with all threads, resident memory; and on which cores they run.

Sleeps only to see rest.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

Reading = Callable[[Iterable[int], Path], float]  # used, resident
PROC = Path("/proc")

_TICKS = os.sysconf("SC_CLK_TCK")
REST_S = 0.2  # of nearly no CPU: what was under way is done
RESTLESS = 0.02  # CPU s in REST_S that an idle agent's own chores may take
PATIENCE_S = 30.0  # for rest to come: the records of the connections of a load may take a while


class ProcessGone(Exception):
    """A process under measurement ended: what was measured means nothing."""


def used(pids: Iterable[int], proc: Path = PROC) -> float:
    """utime + stime of the processes so far, in seconds (resolution: one tick each). Raises ProcessGone."""
    return sum(_ticks(_read(pid, "stat", proc)) for pid in pids) / _TICKS


def resident(pids: Iterable[int], proc: Path = PROC) -> float:
    """VmRSS of the processes, in MB (10^6 bytes). Raises ProcessGone."""
    total = 0
    for pid in pids:
        for line in _read(pid, "status", proc).splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total * 1024 / 1e6


def rest(pids: tuple[int, ...]) -> None:
    """Wait until the processes have finished what they were given. The kernel has no event for it, so this looks.

    Raises TimeoutError when they do not come to rest.
    """
    deadline = time.monotonic() + PATIENCE_S
    before = used(pids)
    while True:
        time.sleep(REST_S)
        now = used(pids)
        if now - before <= RESTLESS:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {pids} still use {(now - before) / REST_S:.2f} cores without load")
        before = now


def pin(pids: Iterable[int], cores: Iterable[int], proc: Path = PROC) -> None:
    """Every thread of the processes runs on these cores from now on, so does what they start. Raises ProcessGone."""
    wanted = set(cores)
    for pid in pids:
        try:
            threads = [int(path.name) for path in (proc / str(pid) / "task").iterdir()]
        except FileNotFoundError as error:
            raise ProcessGone(f"process {pid} ended before it was measured") from error
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):  # a thread that ended meanwhile
                os.sched_setaffinity(thread, wanted)


def _ticks(stat: str) -> int:
    """utime and stime are fields 14 and 15 (proc(5)); the name, field 2, may contain blanks and brackets."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _read(pid: int, name: str, proc: Path) -> str:
    try:
        return (proc / str(pid) / name).read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(f"process {pid} ended while it was measured") from error
