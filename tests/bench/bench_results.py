"""Results of a bench that never ran, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from bench.mesh.loads import LOADS
from bench.mesh.modes import NAMES

MACHINE = {"cores": 2, "cpu": "A Processor", "kernel": "6.18.0"}


def a_measured(
    value: float = 100.0, *, work: float = 1000.0, proxy: float = 0.0, agent: float = 0.0, errors: int = 0
) -> dict[str, Any]:
    """One load of one round, with every figure there is."""
    figures = dict.fromkeys(("p50_us", "p99_us", "p999_us", "gbit_s", "per_s"), value)
    return {"figures": figures, "work": work, "errors": errors, "proxy_cpu_s": proxy, "agent_cpu_s": agent}


def some_results(rounds: dict[str, dict[str, list[dict[str, Any]]]], **more: object) -> dict[str, Any]:
    return {
        "taken_at": "2026-11-29T12:00:00+00:00",
        "machine": MACHINE,
        "versions": {"engine": "1"},
        "seconds_per_load": 2,
        "carried": {},
        "failures": [],
        "idle": {},
        "rounds": rounds,
        "note": "",
    } | more


def whole_results() -> dict[str, Any]:
    """Two rounds of everything."""
    rounds = {
        mode: {
            load.name: [a_measured(number * (place + 1), proxy=0.5 * (place > 0)) for number in (100.0, 110.0)]
            for load in LOADS
        }
        for place, mode in enumerate(NAMES)
    }
    return some_results(rounds, idle={"ambient": AN_IDLE}, carried={"ambient": ["tunnel"]})


AN_IDLE = {
    "connections": 10_000,
    "proxy_mb": [8.0, 9.0],
    "agent_mb": [55.0, 65.0],
    "proxy_bytes": [5_000.0, 7_000.0],
    "agent_bytes": [300.0, 200.0],
}
