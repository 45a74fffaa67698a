"""The programs of Kubernetes: built from their Go modules, once, into the cache. Starts none of them.

Debian has no current Kubernetes; its modules can be had wherever Go is used. A build is keyed by what goes into it, so
several checkouts share one, and an old one stays for the branch that needs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hack.kube import archive, config, layout, toolchain
from hack.kube.errors import ClusterError

SOURCES = Path(__file__).parent / "components"
KWOK = Path(__file__).parent / "kwok"  # apart: what only a benchmark needs is not built for the tests
NAMES = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
ONE_FOR_ALL = "kubernetes"  # those are links to this: one binary shares what they have in common, which is most
RECIPE = "1"  # to be counted up when the commands below change what they make


def directory() -> Path:
    """Where the programs of this checkout's sources are, or are to be."""
    return layout.CACHE / f"components-{_digest(SOURCES)}"


def _digest(sources: Path) -> str:
    digest = hashlib.sha256(RECIPE.encode())
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(sources)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def built() -> Path:
    """The directory of the programs. Raises ClusterError when they are not there."""
    if not (found := directory()).exists():
        raise ClusterError(f"Kubernetes' programs are not built (no {found}): make kube-components")
    return found


def build() -> Path:
    """Build what is missing: some ten minutes on two cores the first time, then nothing. Returns the directory."""
    target = directory()
    layout.CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(layout.CACHE / "build.lock"):
        if target.exists():
            return target
        scratch = target.with_suffix(".new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        print(f"kube: building Kubernetes and CoreDNS into {target}: about ten minutes, this once", flush=True)
        _go(SOURCES / "kubernetes", scratch / ONE_FOR_ALL, _version_flags())
        for name in NAMES:
            (scratch / name).symlink_to(ONE_FOR_ALL)
        _go(SOURCES / "coredns", scratch / "coredns")
        pause = SOURCES / "pause" / "pause.c"
        _run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-o", str(scratch / "pause"), str(pause)])
        image = archive.of_program(config.PAUSE_IMAGE, "/pause", (scratch / "pause").read_bytes())
        (scratch / "pause.tar").write_bytes(image)
        scratch.rename(target)  # a build that was interrupted is not taken for one
    return target


def build_kwok() -> Path:
    """The program that plays the kubelets of nodes which do not exist; built, in some minutes, when it is missing."""
    target = layout.CACHE / f"kwok-{_digest(KWOK)}"
    layout.CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(layout.CACHE / "build.lock"):
        if not target.exists():
            print(f"kube: building kwok into {target}: some minutes, this once", flush=True)
            scratch = target.with_suffix(".new")
            _go(KWOK, scratch, package="sigs.k8s.io/kwok/cmd/kwok")
            scratch.rename(target)
    return target


def kubernetes_version() -> str:
    """As its module has it: v1.34.4."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (SOURCES / "kubernetes/go.mod").read_text(), re.MULTILINE)
    assert found, "go.mod requires k8s.io/kubernetes"
    return found[1]


def _version_flags() -> str:
    """What Kubernetes' own build says to its linker: components refuse peers whose version they cannot read."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    said = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in said.items())


def _go(module: Path, output: Path, flags: str = "", package: str = ".") -> None:
    command = [
        toolchain.go(),
        "build",
        "-mod=readonly",
        "-trimpath",
        "-ldflags",
        f"-s -w {flags}".rstrip(),
        "-o",
        str(output),
    ]
    _run([*command, package], module, {**os.environ, "CGO_ENABLED": "0"})


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(["nice", "-n", "10", *command], cwd=cwd, env=env, check=True)
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"{' '.join(command)} in {cwd or Path.cwd()} failed; what it said is above") from error


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two builds at a time would do the same work twice."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
