"""The kernel lane in virtual machines: compile once, boot, tell what they say, count. Knows nothing of emulators."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from hack.vm import kernel, layout, results, share
from hack.vm.errors import VmError
from hack.vm.machine import Machine, ended

TIMEOUT_S = 120  # as in pyproject.toml
GRACE_S = 60.0  # for the test that is running when the time is up, and for the summary
PAUSE_S = 0.5  # between two looks at what a machine wrote: it gives no event
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "kernel")


def run(tests: Sequence[str], *, machines: int, limit_s: float) -> bool:
    """Whether all tests passed. Raises VmError when they could not be run, or not within `limit_s`."""
    booted = kernel.fetch()
    with _alone():
        expected = _compile(tests)
        print(f"vm: {expected} tests on Linux {booted.release}, {machines} machines without KVM", flush=True)
        shutil.rmtree(layout.RUNS, ignore_errors=True)
        claims = layout.RUNS / "claims"
        claims.mkdir(parents=True)
        fleet = {str(number): Machine(booted, layout.RUNS, str(number)) for number in range(1, machines + 1)}
        before = time.monotonic()
        with ended(list(fleet.values())):
            for machine in fleet.values():
                machine.start([*_pytest(machine), *tests], _environment())
            _follow(fleet, before + limit_s)
        took = time.monotonic() - before
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"vm: {took:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processor time; see {layout.RUNS}")
        return _judge(fleet, expected)


def _pytest(machine: Machine) -> Sequence[str]:
    options = ["-v", "--reruns=1", f"--timeout={TIMEOUT_S * layout.SLOWNESS}", "-p", share.__name__]
    return [*PYTEST, *options, f"--junitxml={machine.directory}/junit.xml"]


def _environment() -> Mapping[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "AMBIENT_NO_SKIP": "1",
        "AMBIENT_TEST_SLOWNESS": str(layout.SLOWNESS),
        share.CLAIMS: str(layout.RUNS / "claims"),
    }


def _compile(tests: Sequence[str]) -> int:
    """Let Python compile here what no machine then has to: twenty seconds of each start. Returns how many tests
    there are."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    said = ""
    for command in ([sys.executable, "-m", "compileall", "-q", "ambient"], [*PYTEST, "--collect-only", "-q", *tests]):
        done = subprocess.run(
            command, cwd=layout.REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        said = done.stdout
        if done.returncode != 0:
            raise VmError(f"{' '.join(command)} failed:\n{said}{done.stderr}")
    return sum("::" in line for line in said.splitlines())


def _follow(fleet: Mapping[str, Machine], until: float) -> None:
    """Tell what the machines write until all have ended."""
    while True:
        running = [name for name, machine in fleet.items() if machine.running()]
        for name, machine in fleet.items():
            for line in machine.new_output():
                print(f"{name}: {line}", flush=True)
            if name not in running:
                machine.status()  # one that ended before its time ends the others
        if not running:
            return
        if time.monotonic() > until:
            (layout.RUNS / "claims" / share.STOP).touch()
        if time.monotonic() > until + GRACE_S:
            raise VmError(f"the machines {', '.join(running)} were not done in time and were ended; see {layout.RUNS}")
        time.sleep(PAUSE_S)


def _judge(fleet: Mapping[str, Machine], expected: int) -> bool:
    usual = (0, 1, 2)  # all passed, some failed, stopped because the time was up
    reports = {name: machine.directory / "junit.xml" for name, machine in fleet.items()}
    bad = [name for name, machine in fleet.items() if machine.status() not in usual or not reports[name].exists()]
    if bad:
        raise VmError(f"pytest could not run in the machines {', '.join(bad)}: what it said is above")
    found = results.merged(report.read_text() for report in reports.values())
    for name in found.failed:
        print(f"FAILED {name}")
    if found.ran < expected:
        raise VmError(f"of {expected} tests only {found.ran} ran, the time was up; see {layout.RUNS}")
    print(f"{len(found.passed)} passed, {len(found.failed)} failed")
    return not found.failed


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    layout.BUILD.mkdir(parents=True, exist_ok=True)
    with (layout.BUILD / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VmError(f"machines of this checkout are running already ({layout.BUILD})") from None
        yield
