"""Debian's package of the kernel: fetched and unpacked into the cache, once. Installs nothing and boots nothing."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.vm import layout
from hack.vm.errors import VmError

SERIES = "6.1.0"  # Debian 12's for as long as it lives; docs/install.md promises no older one
ARCHITECTURE = "amd64"


@dataclass(frozen=True, slots=True)
class Kernel:
    release: str  # as uname says it: 6.1.0-57-amd64
    image: Path
    modules: Path  # the directory lib/modules/RELEASE


def newest(names: str) -> str:
    """The newest of the packages that apt-cache lists, one a line: linux-image-6.1.0-57-amd64. Raises VmError."""
    pattern = rf"^linux-image-{re.escape(SERIES)}-(\d+)-{ARCHITECTURE}$"
    found = {int(match[1]): match[0] for match in re.finditer(pattern, names, re.MULTILINE)}
    if not found:
        raise VmError(f"apt knows no linux-image-{SERIES}-*-{ARCHITECTURE}: apt-get update, on Debian 12")
    return found[max(found)]


def fetch() -> Kernel:
    """The kernel, from the cache or else by apt-get; some seconds. Raises VmError."""
    package = newest(_said(["apt-cache", "pkgnames", f"linux-image-{SERIES}-"]))
    target = layout.CACHE / package
    layout.CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(layout.CACHE / "fetch.lock"):
        if not target.exists():
            _unpack(package, target)
    return unpacked(target)


def unpacked(directory: Path) -> Kernel:
    """What is in a directory that fetch() made."""
    (modules,) = (directory / "lib" / "modules").iterdir()
    return Kernel(modules.name, directory / "boot" / f"vmlinuz-{modules.name}", modules)


def _unpack(package: str, target: Path) -> None:
    print(f"vm: fetching {package} into {target}", flush=True)
    scratch = target.with_suffix(".new")
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "package").mkdir(parents=True)
    _said(["apt-get", "download", "-qq", package], cwd=scratch / "package")
    (archive,) = (scratch / "package").glob("*.deb")
    _said(["dpkg", "-x", str(archive), str(scratch)])
    shutil.rmtree(scratch / "package")
    _said(["depmod", "-b", str(scratch), unpacked(scratch).release])
    scratch.rename(target)  # one that was interrupted is not taken for a kernel


def _said(command: Sequence[str], cwd: Path | None = None) -> str:
    try:
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise VmError(f"no {command[0]} on this machine: make test-vm installs what it needs, on Debian 12") from error
    except subprocess.CalledProcessError as error:
        raise VmError(f"{' '.join(command)} failed: {error.stderr.strip()}") from error


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
