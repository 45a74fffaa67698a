"""What connections cost that do nothing: resident memory of proxies and agents, before and with many of them."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.mesh import cpu, pods
from bench.mesh.loads import HTTP
from bench.mesh.modes import Mode
from bench.mesh.outputs import LoadFailed

CONNECTIONS = 10_000
SPARE_FDS = 1_000  # of a process's open files, for what is no connection; the kernel's limit bounds us
MODES = ("ambient", "envoy")  # ambient_same has the same processes, and they are to be fresh
OPENING_S = 90.0  # all have had an answer by then
LOOK_S = 0.1

# Each connection has one request, spread over a second (the ends of a connection's buffers are seen), and then nothing.
SCRIPT = """
local asked = 0
function delay()
  asked = asked + 1
  return asked <= {count} and asked % 1000 or 3600000
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    connections: int
    proxy_mb: tuple[float, ...]  # each proxy's, without connections
    agent_mb: tuple[float, ...]
    proxy_bytes: tuple[float, ...]  # more with them, for each connection
    agent_bytes: tuple[float, ...]


def measure(mode: Mode, wanted: int = CONNECTIONS) -> Idle:
    """Of processes that have carried nothing yet, or what they once needed hides what they need now.

    Raises LoadFailed; ProcessGone.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(wanted, files - SPARE_FDS)
    cpu.rest(mode.proxies + mode.agents)
    before = _resident(mode.proxies), _resident(mode.agents)
    with tempfile.TemporaryDirectory(prefix="ambient-bench-") as folder:
        script = Path(folder) / "idle.lua"
        script.write_text(SCRIPT.format(count=count))
        words = ["wrk", "-t1", f"-c{count}", "-d1h", "-s", str(script), f"http://{mode.address}:{HTTP}/"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        child = mode.lab.popen(mode.client, ["prlimit", f"--nofile={files}", *mode.command(words)], **quiet)
        try:
            _until_open(mode, count, child)
            cpu.rest(mode.proxies + mode.agents)
            after = _resident(mode.proxies), _resident(mode.agents)
        finally:
            child.kill()
            child.wait()
    _until(mode, lambda: _open(mode) == 0, "they are closed")
    return Idle(
        connections=count,
        proxy_mb=before[0],
        agent_mb=before[1],
        proxy_bytes=_each(before[0], after[0], count),
        agent_bytes=_each(before[1], after[1], count),
    )


def _until_open(mode: Mode, count: int, child: subprocess.Popen[bytes]) -> None:
    """All are there and have had their request: a second after the last was opened, that is under way at the latest."""

    def opened() -> bool:
        if child.poll() is not None:
            raise LoadFailed(f"{mode.name}: wrk ended before it had opened {count} connections")
        return _open(mode) == count

    _until(mode, opened, f"{count} are open")
    time.sleep(1.0)


def _until(mode: Mode, true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + OPENING_S
    while not true():
        if time.monotonic() > deadline:
            raise LoadFailed(
                f"{mode.name}: after {OPENING_S:g} s not yet true of idle connections: {what}; {_open(mode)} are"
            )
        time.sleep(LOOK_S)


def _open(mode: Mode) -> int:
    """Connections that the web server has, whoever made them."""
    said = mode.lab.exec(pods.SERVER, "ss", "-Htn", "state", "established", f"sport = :{HTTP}").stdout
    return len(said.splitlines())


def _resident(pids: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(cpu.resident([pid]) for pid in pids)


def _each(before: tuple[float, ...], after: tuple[float, ...], count: int) -> tuple[float, ...]:
    return tuple((late - early) * 1e6 / count for early, late in zip(before, after, strict=True))
