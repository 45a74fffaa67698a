"""All rounds of all modes, interleaved, and what becomes of them: the results, as they are written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.mesh import idle, machine, measure, modes
from bench.mesh.loads import Load
from bench.mesh.modes import Mode
from bench.mesh.outputs import LoadFailed

Tell = Callable[[str], object]
TRIES = 3
IDLE = "idle"  # on the command line, beside the loads' names


def results(
    *, names: tuple[str, ...], loads: tuple[Load, ...], with_idle: bool, rounds: int, seconds: int, tell: Tell
) -> dict[str, Any]:
    """Measure. A B C A B C ...: the machine's moods hit all modes alike.

    {taken_at, machine, versions, seconds_per_load, carried: {mode: [path]}, failures: [text], idle: {mode: Idle},
    rounds: {mode: {load: [Measured, one a round]}}}; Idle and Measured as objects of their fields.
    Raises LoadFailed, ProcessGone, TimeoutError, LabError.
    """
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    found: dict[str, dict[str, list[Any]]] = {name: {load.name: [] for load in loads} for name in names}
    idles: dict[str, Any] = {}
    carried: dict[str, list[str]] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ambient-bench-") as folder, modes.standing(names, Path(folder)) as all_:
        if with_idle:
            for mode in (mode for mode in all_ if mode.name in idle.MODES):
                tell(f"{mode.name}: idle connections")
                mode.take_places()
                try:
                    idles[mode.name] = asdict(idle.measure(mode))
                except LoadFailed as error:  # not again: the processes are fresh no more
                    tell(f"failed: {error}")
                    failures.append(str(error))
                mode.forget_records()
        for mode in all_:
            measure.introduce(mode)
            mode.forget_records()
        for number in range(1, rounds + 1):
            for mode in all_:
                mode.take_places()
                for load in loads:
                    tell(f"round {number} of {rounds}: {mode.name}: {load.name}")
                    measured = _measured(mode, load, seconds, failures, tell)
                    found[mode.name][load.name].append(asdict(measured))
                carried |= _paths(mode)
                mode.forget_records()
    return {
        "taken_at": taken_at,
        "machine": machine.facts(),
        "versions": machine.versions(names),
        "seconds_per_load": seconds,
        "carried": carried,
        "failures": failures,
        "idle": idles,
        "rounds": found,
    }


def _measured(mode: Mode, load: Load, seconds: int, failures: list[str], tell: Tell) -> measure.Measured:
    """A load that fails is told, kept with the results, and run again: one mishap in hundreds is no reason to have
    nothing. Raises LoadFailed when it fails every time."""
    for _ in range(TRIES - 1):
        try:
            return measure.measure(mode, load, seconds)
        except LoadFailed as error:
            tell(f"failed, and is run again: {error}")
            failures.append(str(error))
    return measure.measure(mode, load, seconds)


def _paths(mode: Mode) -> dict[str, list[str]]:
    return {mode.name: mode.carried()} if mode.nodes else {}
