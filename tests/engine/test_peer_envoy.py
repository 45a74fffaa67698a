"""HBONE against Envoy, as client and as server."""

from __future__ import annotations

import pathlib
import socket
from collections.abc import Callable, Iterator

import pytest

from ambient.dataplane import abi

from . import apps, envoy, harness, pki, verdicts

pytestmark = pytest.mark.kernel

Reach = Callable[[apps.App], apps.Address]


@pytest.fixture(params=["envoy is the client", "envoy is the server"])
def reach(
    request: pytest.FixtureRequest, far: harness.Node, ca: pki.Authority, tmp_path: pathlib.Path
) -> Iterator[Reach]:
    """Start Envoy on one side of the engine; where does a client dial to reach this app through both?"""
    running = []

    def through_both(app: apps.App) -> apps.Address:
        leaf = ca.svid("shop", "envoy")
        folder = tmp_path / "envoy"
        if request.param == "envoy is the client":
            config = envoy.client(far.tunnel(), app.address, leaf, folder)
        else:
            config = envoy.server(app.address, leaf, folder)
        context = envoy.running(config, folder)
        door = context.__enter__()
        running.append(context)
        if request.param == "envoy is the client":
            return door
        return far.outbound(verdicts.Choice(door, authority=app.address, target=9, context=harness.CONTEXT))

    yield through_both
    for context in running:
        context.__exit__(None, None, None)


def test_what_one_app_says_the_other_hears(reach: Reach, far: harness.Node) -> None:
    total = 1 << 20

    def sink_then_greet(sock: socket.socket) -> None:
        apps.expect_pattern(sock, total)
        assert sock.recv(1) == b""
        sock.sendall(b"after your half-close")

    with apps.App(sink_then_greet) as app, apps.connect(reach(app)) as client:
        apps.send_pattern(client, total)
        client.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(client) == b"after your half-close"
        app.join()
    (record,) = far.agent.await_ended()
    assert (record.reason, record.moved) == (abi.Reason.CLOSED, (total, 21))


def test_a_server_may_speak_first(reach: Reach) -> None:
    """And finish last: an app that finishes first costs Envoy's clients the rest of what it said, whoever they are."""

    def greet(sock: socket.socket) -> None:
        apps.send_pattern(sock, 1 << 20)
        assert apps.read_to_end(sock) == b"thanks"

    with apps.App(greet) as app, apps.connect(reach(app)) as client:
        apps.expect_pattern(client, 1 << 20)
        client.sendall(b"thanks")
        client.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(client) == b""
        app.join()


def test_a_hundred_streams_share_a_tunnel_and_a_reset_ends_one_of_them(reach: Reach, far: harness.Node) -> None:
    far.agent.handlers[abi.Type.TUNNEL] = lambda _: verdicts.Accept(remember=False)
    far.set_stash(128)

    def serve(sock: socket.socket) -> None:
        word = apps.read_exactly(sock, 3)
        if word == b"die":
            apps.reset(sock)
        else:
            sock.sendall(word)

    with apps.App(serve) as app:
        door = reach(app)
        clients = [apps.connect(door) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(b"%03d" % number)
        for number, client in enumerate(clients):
            assert apps.read_exactly(client, 3) == b"%03d" % number
            client.close()
        assert len(far.agent.asked(abi.Type.TUNNEL)) == 1
        with apps.connect(door) as victim:
            victim.sendall(b"die")
            apps.is_reset(victim)  # Envoy as the client tells its own client of an end only
    records = far.agent.await_ended(101)
    assert [record.reason for record in records].count(abi.Reason.RESET_SERVER) == 1
