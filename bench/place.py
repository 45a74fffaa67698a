"""Where programs are measured beside those of the machine: a BPF file system, a cgroup, network namespaces. As root."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ambient.capture import cgroups


@contextlib.contextmanager
def made(loop: Path, *namespaces: str) -> Iterator[tuple[Path, Path]]:
    """A folder with a BPF file system `bpf` and `loop` compiled, and a cgroup, named as the first network namespace."""
    cgroup = cgroups.root() / namespaces[0]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as undo:
        folder = Path(name)
        run("cc", "-O2", str(loop), "-o", str(folder / "loop"))
        (folder / "bpf").mkdir()
        run("mount", "-t", "bpf", "bpf", str(folder / "bpf"))
        undo.callback(run, "umount", str(folder / "bpf"))
        cgroup.mkdir()
        undo.callback(cgroup.rmdir)
        for each in namespaces:
            run("ip", "netns", "add", each)
            undo.callback(run, "ip", "netns", "del", each)
            ip(each, "link set lo up")
        yield folder, cgroup


def ip(namespace: str, *commands: str) -> None:
    for words in commands:
        run("ip", "-n", namespace, *words.split())


def run(*words: str) -> None:
    subprocess.run(words, check=True)
