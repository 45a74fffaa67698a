"""The load: load.c compiled, run in a pod, and what it tells. One process a path: each has figures of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ambient.lab import Lab

SOURCE = Path(__file__).with_name("load.c")
BUILT = Path(__file__).parents[2] / "build" / "load"
SECRET = "AMBIENT-SECRETS!"  # in every message
PORT = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Since the tally before. Members are the connections that stay; times in milliseconds."""

    open: int  # members that have had an answer on the connection they have now
    answered: int  # messages of members
    lost: int  # messages that were said and never came back
    broken: int  # members whose connection ended
    came: int  # new connections that worked
    failed: int
    failed_late: int  # of these, begun more than a second after the tally before
    stall_ms: float  # the longest from when a message was due until it came back
    slowest_ms: float  # the slowest new connection, from when it was due
    errors: dict[str, int]


@functools.cache
def build() -> Path:
    """The program, compiled when it is not there or older than its source."""
    if BUILT.exists() and BUILT.stat().st_mtime >= SOURCE.stat().st_mtime:
        return BUILT
    BUILT.parent.mkdir(exist_ok=True)
    fresh = BUILT.with_name(f"load-{os.getpid()}")
    flags = ["-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", str(fresh), str(SOURCE)], check=True)
    return fresh.rename(BUILT)


class Load:
    def __init__(self, lab: Lab, pod: str, to: str, *, members: int, rate: int, life_ms: int = 0) -> None:
        """Begins at once; see load.c."""
        words: Sequence[object] = [build(), "dial", to, PORT, members, rate, life_ms]
        self.opened = members  # connections that worked, until the last tally; of members only the first of each
        self._process: subprocess.Popen[bytes] = lab.popen(
            pod, [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def tally(self) -> Tally:
        """Of the time since the last one."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return self._read()

    def end(self) -> None:
        """Newcomers under way are waited for. `opened` is final then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._read()
        self._process.stdout.close()
        self._process.wait(10)

    def _read(self) -> Tally:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load ended with {self._process.wait()}")
        tally = Tally(**json.loads(line))
        self.opened += tally.came
        return tally
