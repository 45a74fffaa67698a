"""Engines that a dead agent left, found by the sockets they listen on, and ended. Blocking: not for a running agent.

Whose socket it is says the kernel. A name proves nothing: another agent on this machine has engines of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path

from ambient import config
from ambient.dataplane import doors
from ambient.dataplane.process import EngineFailed, is_engines_own

GONE_S = 5.0  # it takes milliseconds; one that is stopped hears nothing but SIGKILL


def end(run_dir: Path, cgroup_root: Path | None = None) -> list[int]:
    """End those that listen in `run_dir`, connections and all; their pids. Their sockets and cgroups are removed.

    `cgroup_root`: where cgroup v2 is mounted; None: cgroups stay. Raises EngineFailed, after having ended those that
    it could, and PermissionError.
    """
    ended, failures = [], []
    for name in doors.engines(run_dir):
        try:
            if pid := _end(doors.path(run_dir, name, 0), cgroup_root):
                ended.append(pid)
            doors.remove(run_dir, name)
        except EngineFailed as error:
            failures.append(str(error))
    if failures:
        raise EngineFailed("; ".join(failures))
    return ended


def _end(door: Path, cgroup_root: Path | None) -> int:
    """0: nobody listens there."""
    pid = _listener(door)
    if not pid:
        return 0
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:  # it just ended
        return pid
    try:
        if _listener(door) != pid:  # the number is another's by now
            return 0
        cgroup = _cgroup(pid, cgroup_root)
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], GONE_S)[0]:
                _remove(cgroup)
                return pid
    finally:
        os.close(handle)
    raise EngineFailed(f"engine {pid} does not end, not even by SIGKILL: is its node's disk or kernel stuck?")


def _listener(door: Path) -> int:
    """Of the process that listens there; 0: none. Raises EngineFailed when that cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)  # a stopped engine's queue may be full
        try:
            sock.connect(os.fspath(door))
        except (FileNotFoundError, ConnectionRefusedError):
            return 0
        except PermissionError:
            raise
        except OSError as error:
            raise EngineFailed(
                f"the engine at {door} cannot be spoken with ({error.strerror}): end it by hand"
            ) from error
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid = int.from_bytes(credentials[:4], sys.byteorder)
    if not pid:
        raise EngineFailed(f"the engine at {door} is in another pid namespace: run this on its node")
    return pid


def _cgroup(pid: int, root: Path | None) -> Path | None:
    with contextlib.suppress(OSError):
        if root is not None:
            return config.own_cgroup(root, Path(f"/proc/{pid}/cgroup"))
    return None


def _remove(cgroup: Path | None) -> None:
    """If an agent made it for its engine; a container's is its runtime's."""
    if cgroup is not None and is_engines_own(cgroup):
        with contextlib.suppress(OSError):  # somebody else is in it
            cgroup.rmdir()
