"""One round of one side: every load in turn, and what it cost the proxies and the agents."""

from __future__ import annotations

import subprocess
from dataclasses import asdict, dataclass
from typing import Any

from bench.engine import cpu, pods
from bench.engine.loads import LOADS, Load
from bench.engine.outputs import LoadFailed
from bench.engine.sides import Side

GRACE_S = 20.0  # for a load generator to begin and end around its seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    rate: float
    work: float
    errors: int
    proxy_cpu_s: float
    agent_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    number: int
    side: str
    proxy_rss_mb: float  # idle, before the round's loads
    agent_rss_mb: float
    loads: dict[str, Measured]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def round_of(side: Side, number: int, seconds: int) -> Round:
    """Raises LoadFailed; cpu.ProcessGone, with what the log says."""
    try:
        return Round(
            number=number,
            side=side.name,
            proxy_rss_mb=cpu.resident(side.proxies),
            agent_rss_mb=cpu.resident(side.agents),
            loads={load.name: _measure(side, load, seconds) for load in LOADS},
        )
    except cpu.ProcessGone as error:
        raise cpu.ProcessGone(f"{side.name}: {error}\n{side.said()}") from error


def _measure(side: Side, load: Load, seconds: int) -> Measured:
    """CPU time is read at rest before and after: records of the last connections are written after they end."""
    cpu.rest(side.proxies + side.agents)
    proxies, agents = cpu.used(side.proxies), cpu.used(side.agents)
    command = load.command(side.address, seconds)
    try:
        done = side.lab.exec(pods.CLIENT, *command, timeout=seconds + GRACE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"{side.name}: {' '.join(command)} did not end within {error.timeout:g} s") from error
    try:
        outcome = load.parse(done.stdout)
    except LoadFailed as error:
        raise LoadFailed(f"{side.name}: {error}\n{done.stderr[-500:]}") from error
    cpu.rest(side.proxies + side.agents)
    return Measured(
        rate=outcome.rate,
        work=outcome.work,
        errors=outcome.errors,
        proxy_cpu_s=cpu.used(side.proxies) - proxies,
        agent_cpu_s=cpu.used(side.agents) - agents,
    )
