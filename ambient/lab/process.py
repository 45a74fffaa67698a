"""Starting programs in a pod's or node's namespaces, and waiting for their end. Knows no pods: an Entrance says where.

Python runs between fork and exec here, in a process that has one thread: exactly what entering a mount namespace needs.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ambient.lab import cgroups, linux

LAST_BYTES = 1 << 20  # of a log: some thousand records may be in the way of what was written for people


@dataclass(slots=True)
class Sandbox:
    """A pod's mount and UTS namespaces: those of its pause process, which may be another one later."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """Where a process is to live. Called between fork and exec (or by a process on itself, before it execs)."""

    cgroup: Path
    netns: Path
    sandbox: Sandbox | None = None  # to share

    def __call__(self) -> None:
        cgroups.join(self.cgroup)
        kinds = [(self.netns, linux.CLONE_NEWNET)]
        if self.sandbox is not None:
            home = Path(f"/proc/{self.sandbox.pid}/ns")
            kinds += [(home / "uts", linux.CLONE_NEWUTS), (home / "mnt", linux.CLONE_NEWNS)]
        opened = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind) for path, kind in kinds]
        for fd, kind in opened:  # opened before the first is entered: afterwards /proc may be another
            linux.setns(fd, kind)
            os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSandbox:
    """What the pause process does before it execs: own mount and UTS namespaces, the pod's files over the host's."""

    entrance: Entrance
    hostname: str
    binds: Mapping[Path, Path]  # over which file of the host -> which file of the pod

    def __call__(self) -> None:
        self.entrance()
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS)
        # Slave: what the host mounts later (another node's bpffs) appears, what the pod mounts stays in the pod.
        linux.mount("none", Path("/"), flags=linux.MS_REC | linux.MS_SLAVE)
        for target, source in self.binds.items():
            if target.exists():  # a host without the file has programs that do without
                linux.mount(str(source), target, flags=linux.MS_BIND)
        socket.sethostname(self.hostname)


class CannotStart(Exception):
    """The program was not found or its surroundings could not be entered; the text says which."""


def start(
    command: Sequence[str],
    *,
    enter: Entrance | NewSandbox,
    env: Mapping[str, str],
    output: IO[bytes] | int,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, both outputs into `output`. Raises CannotStart."""

    def prepare() -> None:
        try:
            enter()
        except OSError as error:  # Popen would swallow the text: leave it in the log
            os.write(2, f"lab: cannot enter the pod: {error}\n".encode())
            raise

    program = shutil.which(command[0], path=env.get("PATH"))
    if program is None:
        raise CannotStart(f"no program {command[0]!r} in PATH" if "/" not in command[0] else f"no program {command[0]}")
    try:
        return subprocess.Popen(
            command,
            executable=program,
            env=dict(env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,  # safe: the lab's daemon has one thread
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotStart(f"{command[0]}: {error}") from error


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child without polling. Returns its exit code, negative for a signal."""
    if process.returncode is not None:
        return process.returncode
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    fd = os.pidfd_open(process.pid)
    loop.add_reader(fd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return process.wait()


def describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"killed by signal {-code}"


def base_env() -> dict[str, str]:
    """What every container gets, as from an image: a PATH and a HOME, nothing of the lab's own surroundings."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "PYTHONUNBUFFERED": "1"}


def last_lines(path: Path, count: int = 5, *, records: bool = True) -> str:
    """The end of a log, for an error text; a line that is said again and again counts once. Without `records`: only
    what was written for people, no JSON."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[1 if size > LAST_BYTES else 0 :]
    except FileNotFoundError:
        return ""
    told = [line for line, _ in itertools.groupby(lines) if records or not line.startswith("{")]
    return "\n".join(told[-count:])
