"""Out of descriptors: new connections are refused, old ones go on, and all is well again as soon as there are some."""

from __future__ import annotations

import contextlib
import pathlib
import socket

import pytest

from ambient.dataplane import abi

from . import apps, h2peer, harness, pki, process, verdicts

pytestmark = pytest.mark.kernel

CLIENTS = 100
MAX_FDS = 80  # of an engine with some 10 of its own and 32 ready-made sockets


def exchange(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert apps.read_exactly(client, 5) == b"hello"


def crowd_at(door: apps.Address, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Those of CLIENTS that were not reset before connect() returned."""
    clients = []
    for _ in range(CLIENTS):
        with contextlib.suppress(ConnectionError):
            clients.append(stack.enter_context(apps.connect(door)))
    return clients


def served(door: apps.Address) -> bool:
    try:
        with apps.connect(door) as client:
            exchange(client)
    except (ConnectionError, AssertionError):
        return False
    return True


@pytest.mark.parametrize("poor", ["near", "far"])
def test_new_connections_are_refused_and_old_ones_go_on(tmp_path: pathlib.Path, ca: pki.Authority, poor: str) -> None:
    """The door of a poor node in its role: near takes clients, far takes the tunnels of others."""
    with (
        harness.node(tmp_path / "poor", ca.svid("shop", "db"), max_fds=MAX_FDS, connect_ms=500) as node,
        apps.App(apps.echo) as app,
        contextlib.ExitStack() as stack,
    ):
        if poor == "near":
            door = node.outbound(verdicts.Choice(app.address))
        else:
            rich = stack.enter_context(harness.node(tmp_path / "rich", ca.svid(), retries=0))
            choice = verdicts.Choice(node.tunnel(), authority=app.address, target=1, context=harness.CONTEXT)
            door = rich.outbound(choice)
        old = stack.enter_context(apps.connect(door))
        exchange(old)
        with contextlib.ExitStack() as crowd:
            good = 0
            for client in crowd_at(door, crowd):
                with contextlib.suppress(ConnectionError, AssertionError):
                    exchange(client)
                    good += 1
            assert 0 < good < CLIENTS
            exchange(old)
        process.eventually(lambda: served(door), "new connections are served again")
        exchange(old)
        reasons = {record.reason for record in node.agent.ended}
        assert reasons & {abi.Reason.RESOURCES, abi.Reason.NO_SOCKET}, "no record says why"


def test_a_bad_time_for_descriptors_is_no_bad_time_for_the_processor(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    """A listener that is readable and cannot be accepted from must not keep a core busy."""
    with (
        harness.node(tmp_path / "far", ca.svid("shop", "db"), max_fds=MAX_FDS, handshake_ms=20_000) as far,
        apps.App(apps.echo) as app,
        contextlib.ExitStack() as stack,
    ):
        tunnel = far.tunnel()
        client = stack.enter_context(h2peer.dial(tunnel, ca.svid()))
        stream = client.ask(f"{app.address[0]}:{app.address[1]}")
        mute = crowd_at(tunnel, stack)
        pause_while_the_engine_is_idle()
        before = far.engine.cpu_seconds()
        pause_while_the_engine_is_idle()
        assert far.engine.cpu_seconds() - before < 0.25
        client.send(stream, b"hello")
        client.until(lambda: bytes(stream.data) == b"hello")
        for sock in mute:
            sock.close()
        process.eventually(lambda: is_let_in(tunnel, ca.svid()), "tunnels are accepted again")


def is_let_in(tunnel: apps.Address, leaf: pki.Leaf) -> bool:
    try:
        with h2peer.dial(tunnel, leaf) as client:
            return client.pump()
    except OSError:
        return False


def pause_while_the_engine_is_idle() -> None:
    """Half a second in which nothing is sent: the idleness is what is measured."""
    one, two = socket.socketpair()
    with one, two:
        one.settimeout(0.5)
        with pytest.raises(TimeoutError):
            one.recv(1)


def test_descriptors_the_agent_sends_while_there_is_no_room_are_no_nonsense(
    tmp_path: pathlib.Path, ca: pki.Authority
) -> None:
    with (
        harness.node(tmp_path / "far", ca.svid("shop", "db"), max_fds=MAX_FDS) as far,
        apps.App(apps.echo) as app,
    ):
        door = far.outbound(verdicts.Choice(app.address))
        assert served(door)
        for pod in range(2, 12):  # more pods than there is room for
            far.agent.pod(pod, want=32)
        far.agent.inventory(listeners=False)
        assert far.agent.lost == set()
        assert far.engine.fds() <= MAX_FDS
        for pod in range(2, 12):
            far.agent.refer(abi.Type.LEAVE, pod)
        process.eventually(lambda: served(door), "new connections are served again")
