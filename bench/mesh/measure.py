"""One load of one mode: what its users feel, and the CPU time it cost the proxies and the agents."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.mesh import cpu
from bench.mesh.loads import PORTS, Load
from bench.mesh.modes import Mode
from bench.mesh.outputs import LoadFailed, Outcome

GRACE_S = 30.0  # for a load generator to begin and end around its seconds
# What runs beside needs so long until it flows, or the round trips until they have warmed up and count (sockperf: 0.4).
HEAD_START_S, LATER_S = 0.7, 0.2

_DIAL = """
import socket, sys
for port in sys.argv[2:]:
    socket.create_connection((sys.argv[1], int(port)), 10).close()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    figures: dict[str, float]  # see outputs.Outcome
    work: float
    errors: int
    proxy_cpu_s: float
    agent_cpu_s: float


def introduce(mode: Mode) -> None:
    """One connection to each port, in every mode: a pod's first one is the engine's, also where all others are direct.

    A load that is one connection for all of its time would measure only that. Raises LoadFailed.
    """
    try:
        mode.lab.exec(mode.client, sys.executable, "-c", _DIAL, mode.address, *map(str, PORTS))
    except subprocess.CalledProcessError as error:
        raise LoadFailed(f"{mode.name}: the server's ports cannot be dialled: {error.stderr[-500:]}") from error


def measure(mode: Mode, load: Load, seconds: int) -> Measured:
    """CPU time is read at rest before and after: records of the last connections are written after they end.

    Raises LoadFailed; TimeoutError without rest; ProcessGone, with what the logs say.
    """
    try:
        cpu.rest(mode.proxies + mode.agents)
        before = cpu.used(mode.proxies), cpu.used(mode.agents)
        outcome = _run(mode, load, seconds)
        cpu.rest(mode.proxies + mode.agents)
        proxies, agents = cpu.used(mode.proxies), cpu.used(mode.agents)
    except cpu.ProcessGone as error:
        raise cpu.ProcessGone(f"{mode.name}, {load.name}: {error}\n{mode.said()}") from error
    return Measured(
        figures=outcome.figures,
        work=outcome.work,
        errors=outcome.errors,
        proxy_cpu_s=proxies - before[0],
        agent_cpu_s=agents - before[1],
    )


def _run(mode: Mode, load: Load, seconds: int) -> Outcome:
    if load.beside is None:
        with _started(mode, load, seconds) as child:
            return _outcome(mode, load, child, seconds)
    order = (load.beside, load) if load.first else (load, load.beside)
    with _started(mode, order[0], seconds) as one:
        time.sleep(HEAD_START_S if load.first else LATER_S)
        with _started(mode, order[1], seconds) as two:
            outcomes = {order[0].name: _outcome(mode, order[0], one, seconds)}
            outcomes[order[1].name] = _outcome(mode, order[1], two, seconds)
    own, beside = outcomes[load.name], outcomes[load.beside.name]
    return Outcome(own.figures | beside.figures, beside.work, own.errors + beside.errors)


@contextlib.contextmanager
def _started(mode: Mode, load: Load, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """The generator, in the client pod; ended in any case."""
    words = mode.command(load.command(mode.address, seconds))
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = mode.lab.popen(mode.client, words, **pipes)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _outcome(mode: Mode, load: Load, child: subprocess.Popen[str], seconds: int) -> Outcome:
    try:
        said, complained = child.communicate(timeout=seconds + GRACE_S)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"{mode.name}, {load.name}: it did not end within {error.timeout:g} s") from error
    try:
        return load.parse(said)
    except LoadFailed as error:
        raise LoadFailed(f"{mode.name}, {load.name}: {error}\n{complained[-500:]}") from error
