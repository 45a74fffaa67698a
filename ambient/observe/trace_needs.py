"""What the tracer needs of this machine, and which package brings what is missing. Looks; installs nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PYTHON = "/usr/bin/python3"  # Debian's: bcc is built for it; PyPI's `bcc` is something else
TRACER = str(Path(__file__).with_name("tracer.py"))
MODULES = Path("/lib/modules")
SOURCES = Path("/usr/src")


def missing() -> list[str]:
    """In words, each with the remedy; empty when the tracer can run."""
    found = []
    if os.geteuid() != 0:
        found.append("root: only root may load eBPF programs (use sudo)")
    if "tracefs" not in Path("/proc/filesystems").read_text().split():
        found.append("tracefs: this kernel is built without tracing (CONFIG_FTRACE)")
    if not _has_bcc():
        found.append(f"bcc for {PYTHON}: apt-get install python3-bpfcc (not PyPI's bcc, which is unrelated)")
    if not _native() and headers() is None:
        release = os.uname().release
        found.append(
            f"kernel headers: neither {MODULES / release}/build nor any {SOURCES}/linux-headers-* is there; "
            f"apt-get install linux-headers-{release}, or where that does not exist linux-headers-amd64 (or -arm64)"
        )
    return found


def headers() -> dict[str, str] | None:
    """Debian's headers of another kernel, where those of the running one are not installed; None: nothing to add.

    The tracepoints' layouts come from the running kernel; headers only supply types that did not change for years.
    """
    if _native():
        return None
    pairs = [
        (build, common)
        for common in SOURCES.glob("linux-headers-*-common")
        for build in SOURCES.glob(common.name.removesuffix("common") + "*")
        if build != common and "-rt-" not in build.name
    ]
    if not pairs:
        return None
    build, common = max(
        pairs, key=lambda pair: [int(n) for n in pair[0].name.replace("-", ".").split(".") if n.isdigit()]
    )
    return {"build": str(build), "source": str(common)}


def _native() -> bool:
    return (MODULES / os.uname().release / "build" / "include").is_dir()


def _has_bcc() -> bool:
    if not Path(PYTHON).exists():
        return False
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('bcc') is None)"
    return subprocess.run([PYTHON, "-I", "-c", look], check=False, stdin=subprocess.DEVNULL).returncode == 0
