"""One size of the mesh, measured: the parts in a process of their own, then a server and agents over loopback TLS."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bench.control import served
from bench.mesh import cpu

Figures = dict[str, float]
Ask = Callable[[str | None], dict[str, Any]]


class Failed(Exception):
    """A process of the benchmark ended: what was measured means nothing. Its own words are above this."""


@dataclass(frozen=True)
class Target:
    """A control plane, ours or the real one, and a way to change what it serves."""

    address: str
    server_name: str
    roots: Path
    token: Path | None
    pid: int  # whose CPU time and memory count
    change: Callable[[str], float]  # "pod" or "policy"; returns when it was made, by time.monotonic()


def parts(pods: int, agents: int, changes: int) -> Figures:
    """Without a network: see bench.control.inprocess."""
    command = [sys.executable, "-m", "bench.control.inprocess", str(pods), str(agents), str(changes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, process_group=0)
    if done.returncode:
        raise Failed(f"{' '.join(command[1:])} ended with status {done.returncode}")
    return dict(json.loads(done.stdout))


@contextlib.contextmanager
def serving(pods: int) -> Iterator[tuple[Target, Figures]]:
    """A server of a made-up World, and how long it took to be ready."""
    with (
        tempfile.TemporaryDirectory(prefix="ambient-bench-") as folder,
        _process("bench.control.served", str(pods), folder) as (process, ask),
    ):
        first = ask(None)
        target = Target(
            f"127.0.0.1:{first['port']}",
            served.NAME,
            Path(folder) / "roots.pem",
            None,
            process.pid,
            lambda kind: float(ask(kind)["at"]),
        )
        yield target, {"control_ready_s": float(first["ready_s"])}


def pushes(target: Target, agents: int, changes: int, kinds: tuple[str, ...] = ("pod", "policy")) -> Figures:
    """Changes, one after the other, each when the one before has reached everybody."""
    arguments = [str(agents), target.address, target.server_name, str(target.roots)]
    with _process("bench.control.agents", *arguments, *([str(target.token)] if target.token else [])) as (_, ask):
        found = {"agents_synced_s": float(ask(None)["synced_s"])}
        for kind in kinds:
            latencies: list[float] = []
            cpu.rest((target.pid,))
            before = cpu.used([target.pid])
            for _ in range(changes):
                made_at = target.change(kind)
                latencies += [at - made_at for at in _arrivals(ask, made_at)]
            cpu.rest((target.pid,))
            found[f"{kind}_cpu_ms"] = (cpu.used([target.pid]) - before) / changes * 1e3
            found[f"{kind}_p50_ms"] = statistics.median(latencies) * 1e3
            found[f"{kind}_p99_ms"] = statistics.quantiles(latencies, n=100)[98] * 1e3
        found["control_mb"] = cpu.resident([target.pid])
    return found


def _arrivals(ask: Ask, made_at: float) -> list[float]:
    """Of the first state that reached the last agent after the change was made: others bring states of their own."""
    while max(arrivals := ask(None)["arrivals"]) < made_at:
        pass
    return list(arrivals)


def by_command(command: str) -> Callable[[str], float]:
    """A change made by whoever knows how: `kubectl`, an editor of manifests. Its own time counts."""

    def change(_: str) -> float:
        begun = time.monotonic()
        subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
        return begun

    return change


@contextlib.contextmanager
def _process(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Ask]]:
    """A process that answers a line, or none, with a line of JSON. Ended with its input, not by Ctrl-C at ours."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        said, heard = _pipes(process)

        def ask(line: str | None) -> dict[str, Any]:
            if line is not None:
                said.write(line + "\n")
                said.flush()
            answer = heard.readline()
            if not answer:
                raise Failed(f"{module} ended in the middle of the benchmark")
            return dict(json.loads(answer))

        yield process, ask
        said.close()


def _pipes(process: subprocess.Popen[str]) -> tuple[TextIO, TextIO]:
    said, heard = process.stdin, process.stdout
    if said is None or heard is None:
        raise AssertionError("both were asked for")
    return said, heard  # type: ignore[return-value]  # text=True makes them so
