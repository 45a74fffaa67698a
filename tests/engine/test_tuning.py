"""What the sockets of the engine are set to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket

import pytest

from ambient.dataplane import abi

from . import apps, harness, process, verdicts

pytestmark = pytest.mark.kernel

_PIDFD_GETFD = {"x86_64": 438, "aarch64": 438}[platform.machine()]
_libc = ctypes.CDLL(None, use_errno=True)


def accepted(engine: process.Engine, client: socket.socket) -> socket.socket:
    """A copy of the engine's end of this connection."""
    pidfd = os.pidfd_open(engine.pid)
    try:
        for number in (int(name) for name in os.listdir(engine.proc("fd"))):
            fd = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
            if fd < 0:
                continue
            try:
                sock = socket.socket(fileno=fd)
            except OSError:
                os.close(fd)
                continue
            with contextlib.suppress(OSError):
                if sock.family == socket.AF_INET and sock.getpeername() == client.getsockname():
                    return sock
            sock.close()
    finally:
        os.close(pidfd)
    raise AssertionError("the engine has no such connection")


def options(sock: socket.socket) -> tuple[bool, bool]:
    """Whether it sends at once, and whether it probes a silent peer."""
    at_once = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    return bool(at_once), bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


@pytest.mark.parametrize(
    ("role", "probed"),
    [
        pytest.param(abi.Role.INBOUND_TUNNEL, True, id="a tunnel's peer may vanish"),
        pytest.param(abi.Role.INBOUND_PLAIN, True, id="and so may a client elsewhere"),
        pytest.param(abi.Role.OUTBOUND, False, id="the pod's own app ends with this kernel"),
    ],
)
def test_what_is_accepted_sends_at_once_and_asks_after_peers_that_may_vanish(
    far: harness.Node, role: abi.Role, probed: bool
) -> None:
    with apps.App(apps.echo) as app:
        _, door = far.listen(role, verdicts.Choice(app.address))
        with apps.connect(door), apps.connect(door) as client:  # the first waited when the engine was given the door
            if role is not abi.Role.INBOUND_TUNNEL:
                client.sendall(b"x")
                apps.read_exactly(client, 1)
            process.eventually(lambda: _is_there(far.engine, client), "the engine accepts")
            with accepted(far.engine, client) as sock:
                assert options(sock) == (True, probed)
                if probed:
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def test_new_settings_hold_for_listeners_that_were_there(far: harness.Node) -> None:
    with apps.App(apps.echo) as app:
        door = far.plain(verdicts.Choice(app.address))
        far.agent.settings(keepalive_s=0)
        far.agent.inventory(listeners=False)  # answered when they are read
        with apps.connect(door) as client:
            client.sendall(b"x")
            apps.read_exactly(client, 1)
            with accepted(far.engine, client) as sock:
                assert options(sock) == (True, False)


def _is_there(engine: process.Engine, client: socket.socket) -> bool:
    try:
        accepted(engine, client).close()
    except AssertionError:
        return False
    return True
