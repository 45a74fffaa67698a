"""Out of descriptors: new connections are refused, old ones go on, and all is well again as soon as there are some."""

from __future__ import annotations

import contextlib
import socket

import pytest

from ambient.dataplane import abi

from . import apps, h2peer, harness, pki, process, verdicts

pytestmark = pytest.mark.kernel

CLIENTS = 100


def exchange(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert apps.read_exactly(client, 5) == b"hello"


def served(door: apps.Address) -> bool:
    try:
        with apps.connect(door) as client:
            exchange(client)
    except (ConnectionError, AssertionError):
        return False
    return True


def test_new_connections_are_refused_and_old_ones_go_on(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app, contextlib.ExitStack() as stack:
        door = pair.to(app.address)
        old = stack.enter_context(apps.connect(door))
        exchange(old)
        for node in (pair.near, pair.far):
            plenty = node.engine.fd_limit()
            node.engine.limit_fds(node.engine.fds() + 8)
            stack.callback(node.engine.limit_fds, plenty)
        with contextlib.ExitStack() as crowd:
            clients = [crowd.enter_context(apps.connect(door)) for _ in range(CLIENTS)]
            good = 0
            for client in clients:
                with contextlib.suppress(ConnectionError, AssertionError):
                    exchange(client)
                    good += 1
            assert good < CLIENTS
            exchange(old)
        for node in (pair.near, pair.far):
            node.engine.limit_fds(plenty)
        process.eventually(lambda: served(door), "new connections are served again")
        exchange(old)
        pair.near.agent.wait(
            lambda: any(
                record.reason in (abi.Reason.RESOURCES, abi.Reason.NO_SOCKET) for record in pair.near.agent.ended
            ),
            "a record that says why",
        )


def test_a_bad_time_for_descriptors_is_no_bad_time_for_the_processor(far: harness.Node, ca: pki.Authority) -> None:
    """A listener that is readable and cannot be accepted from must not keep a core busy."""
    tunnel = far.tunnel()
    with apps.App(apps.echo) as app, contextlib.ExitStack() as stack:
        client = stack.enter_context(h2peer.dial(tunnel, ca.svid()))
        stream = client.ask(f"{app.address[0]}:{app.address[1]}")
        plenty = far.engine.fd_limit()
        far.engine.limit_fds(far.engine.fds())
        for _ in range(CLIENTS):
            stack.enter_context(apps.connect(tunnel))
        before = far.engine.cpu_seconds()
        assert client.sock.fileno() >= 0
        pause_while_the_engine_is_idle()
        assert far.engine.cpu_seconds() - before < 0.25
        client.send(stream, b"hello")
        client.until(lambda: bytes(stream.data) == b"hello")
        far.engine.limit_fds(plenty)
    with h2peer.dial(tunnel, ca.svid()) as again:
        assert again.open("127.0.0.1:9")


def pause_while_the_engine_is_idle() -> None:
    """Half a second in which nothing is sent: the idleness is what is measured."""
    one, two = socket.socketpair()
    with one, two:
        one.settimeout(0.5)
        with pytest.raises(TimeoutError):
            one.recv(1)


def test_descriptors_the_agent_sends_while_there_is_no_room_are_no_nonsense(far: harness.Node) -> None:
    with apps.App(apps.echo) as app:
        door = far.outbound(verdicts.Choice(app.address))
        assert served(door)
        plenty = far.engine.fd_limit()
        far.engine.limit_fds(far.engine.fds())
        far.agent.stash(harness.POD, 128, worker=0)
        far.agent.inventory(listeners=False)
        assert far.agent.lost == set()
        far.engine.limit_fds(plenty)
        process.eventually(lambda: served(door), "new connections are served again")
