"""Access records as they come: follows an agent's log from now on. Reads only."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ambient.lab.client import Lab

Record = dict[str, Any]


class Records:
    """The records that a node's agent writes while in the `with` block."""

    def __init__(self, lab: Lab, node: str) -> None:
        path = lab.log_file(f"node/{node}")
        self._kept: list[Record] = []
        self._rest = b""
        # tail waits for inotify's word and follows a log from a byte on; the end is noted before anything happens.
        self._tail = subprocess.Popen(
            ["tail", "-c", f"+{path.stat().st_size + 1}", "-F", str(path)], stdout=subprocess.PIPE, bufsize=0
        )

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tail.stdout is not None
        self._tail.stdout.close()
        self._tail.kill()
        self._tail.wait()

    def first(self, matches: Callable[[Record], bool], *, patience: float = 5.0) -> Record | None:
        """The first record that matches, waiting for it if need be; None when there is none in time."""
        deadline = time.monotonic() + patience
        while True:
            for record in self._kept:
                if matches(record):
                    return record
            if not self._read(deadline - time.monotonic()):
                return None

    def _read(self, patience: float) -> bool:
        """Take in what was written; False when nothing is within `patience` seconds."""
        assert self._tail.stdout is not None
        if patience <= 0 or not select.select([self._tail.stdout], [], [], patience)[0]:
            return False
        *lines, self._rest = (self._rest + self._tail.stdout.read(1 << 16)).split(b"\n")
        self._kept += [json.loads(line) for line in lines if line.startswith(b'{"')]
        return True
