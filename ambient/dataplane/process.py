"""The engine as a process: find its binary, start it in a session and cgroup of its own, notice its death.

The engine outlives the agent that started it; nothing here ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
from pathlib import Path

from ambient.dataplane import doors

BINARY = Path(__file__).parent.parent / "native" / "ambient-engine"
log = logging.getLogger(__name__)
_ALONE, _BELOW = "ambient-engine", "engine"
_START_TIMEOUT = 5.0  # seconds; it takes some 20 ms, a loaded machine ten times that


class EngineFailed(Exception):
    """The engine could not be started, or not be spoken with; the text says what was tried and what it said."""


class AnotherVersion(EngineFailed):
    """Trying again will not help."""


def cgroup_for_engine(agent_cgroup: Path, mesh_cgroup: Path) -> Path:
    """Where the engine belongs: below the agent's own cgroup, never in one that pods are in too.

    The connect hook tells the engine's connections from the pods' by this cgroup.
    """
    if agent_cgroup != mesh_cgroup and mesh_cgroup not in agent_cgroup.parents:
        return mesh_cgroup / _ALONE  # the agent is outside of what is captured: keep the engine findable
    return agent_cgroup / (_ALONE if agent_cgroup == mesh_cgroup else _BELOW)


def is_engines_own(cgroup: Path) -> bool:
    """Whether cgroup_for_engine() may have said so."""
    return cgroup.name in (_ALONE, _BELOW)


async def start(run_dir: Path, threads: int, cgroup: Path, *, binary: Path = BINARY) -> int:
    """Start an engine and wait until its sockets are there. Returns its pid. Raises EngineFailed."""
    if not os.access(binary, os.X_OK):
        raise EngineFailed(f"no engine at {binary}: build it with `make native`, or install a wheel, which contains it")
    ready, ready_child = os.pipe()
    try:
        command = [os.fspath(binary), "--run-dir", os.fspath(run_dir), "--threads", str(threads)]
        try:
            child = _spawn([*command, "--ready-fd", str(ready_child)], ready_child, cgroup)
        except OSError as error:
            raise EngineFailed(f"starting {' '.join(command)} in cgroup {cgroup} failed: {error}") from error
        os.close(ready_child)
        ready_child = -1
        if await _first_byte(ready):
            return child.pid
        child.kill()
        status = child.wait()
        raise EngineFailed(
            f"{' '.join(command)} was not ready within {_START_TIMEOUT:g} s (status {status}); "
            "its own message stands above this one"
        )
    finally:
        os.close(ready)
        if ready_child >= 0:
            os.close(ready_child)


def _spawn(command: list[str], keep: int, cgroup: Path) -> subprocess.Popen[bytes]:
    """It is in its cgroup before it can have a connection: it has none until an agent attached."""
    cgroup.mkdir(exist_ok=True)
    child = subprocess.Popen(command, pass_fds=(keep,), stdin=subprocess.DEVNULL, start_new_session=True)
    (cgroup / "cgroup.procs").write_text(str(child.pid))
    return child


async def build(binary: Path) -> str:
    """What an engine of this binary says it is; equal texts, equal programs. Raises EngineFailed."""
    try:
        child = await asyncio.create_subprocess_exec(binary, "--version", stdout=subprocess.PIPE)
        async with asyncio.timeout(_START_TIMEOUT):
            said, _ = await child.communicate()
        return said.decode().split()[1]  # ambient-engine BUILD (abi N)
    except (OSError, TimeoutError, ValueError, IndexError) as error:
        raise EngineFailed(f"{binary} --version said nothing of use: {error}") from error


async def appear(run_dir: Path) -> None:
    """Return when an engine that somebody else starts is there."""
    log.info("waiting for an engine in %s", run_dir)
    async with contextlib.aclosing(doors.changes(run_dir)) as changes:
        async for _ in changes:
            for engine in doors.engines(run_dir):
                if await asyncio.to_thread(_answers, doors.path(run_dir, engine, 0)):
                    return


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(os.fspath(path))
        except OSError:
            return False
        return True


async def _first_byte(fd: int) -> bool:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, arrived)
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            await arrived
        return os.read(fd, 1) != b""
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)


async def gone(pid: int) -> None:
    """Return when the process is no more, whoever its parent is."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _settle, ended)
    try:
        await ended
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        reap(pid)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def reap(pid: int) -> None:
    """Collect a dead child; harmless for a process that is not ours."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
