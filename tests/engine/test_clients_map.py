"""The app's view of its client: the dialled socket's address, and the `clients` map that is shown instead of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from ambient.dataplane import abi, wire

from . import apps, bpfmap, h2peer, harness, pki, process, verdicts

pytestmark = pytest.mark.kernel


@pytest.fixture
def clients(far: harness.Node) -> Iterator[bpfmap.ClientsMap]:
    """The map, known to far; far binds what it dials and writes it."""
    made = bpfmap.ClientsMap()
    far.agent.send(wire.Message(abi.Type.CLIENTS_MAP, fds=[made.fd]))
    for kind in (abi.Type.REQUEST, abi.Type.ACCEPTED):
        plain = far.agent.handlers[kind]
        far.agent.handlers[kind] = lambda question, plain=plain: dataclasses.replace(plain(question), show_client=True)
    yield made
    made.close()


def only_entry(clients: bpfmap.ClientsMap) -> tuple[int, apps.Address, apps.Address]:
    """(pod, what the app sees, what it is to be shown)"""
    ((key, value),) = clients.entries()
    return (
        key.netns_cookie,
        verdicts.read(abi.Addr(ip=key.ip, port=key.port)),
        verdicts.read(abi.Addr(ip=value.ip, port=value.port)),
    )


def test_a_request_is_shown_with_the_port_it_was_forwarded_for(
    far: harness.Node, ca: pki.Authority, clients: bpfmap.ClientsMap
) -> None:
    """The port is hearsay and harmless; the address is the tunnel's, which is checked."""
    with apps.App(apps.echo) as app, h2peer.dial(far.tunnel(), ca.svid()) as client:
        stream = client.ask(f"{app.address[0]}:{app.address[1]}", [("forwarded", 'for="10.9.8.7:4242"')])
        assert stream.status == 200
        app.await_connected()
        assert only_entry(clients) == (harness.POD, app.peers[0], ("127.0.0.1", 4242))
        assert app.peers[0][0] == app.address[0], "the app sees its own pod's address"
        ((_, value),) = clients.entries()
        assert value.writer == far.engine.pid, "or nobody could tell a dead engine's rows from a living one's"
        client.send(stream, b"", end=True)
        client.until(lambda: stream.ended)
        far.agent.await_ended()
        assert clients.entries() == []


@pytest.mark.parametrize(
    "forwarded",
    ["nonsense", "for=", 'for="10.9.8.7:99999"', 'for="10.9.8.7:-1"', 'for="[::1:5"', "for=unknown", "x" * 500],
)
def test_a_forwarded_header_that_says_nothing_useful_is_no_reason_to_fail(
    far: harness.Node, ca: pki.Authority, clients: bpfmap.ClientsMap, forwarded: str
) -> None:
    with apps.App(apps.echo) as app, h2peer.dial(far.tunnel(), ca.svid()) as client:
        assert client.ask(f"{app.address[0]}:{app.address[1]}", [("forwarded", forwarded)]).status == 200
        app.await_connected()
        _, seen, shown = only_entry(clients)
        assert seen == app.peers[0]
        assert shown[0] == "127.0.0.1"


def test_a_plaintext_client_is_shown_with_its_own_address(far: harness.Node, clients: bpfmap.ClientsMap) -> None:
    with apps.App(apps.echo) as app:
        door = far.plain(verdicts.Choice(app.address))
        with apps.connect(door, source=("127.0.0.5", 0)) as client:
            client.sendall(b"x")
            apps.read_exactly(client, 1)
            assert only_entry(clients) == (harness.POD, app.peers[0], client.getsockname()[:2])
        far.agent.await_ended()
        assert clients.entries() == []


def test_a_reset_connection_leaves_no_entry(far: harness.Node, clients: bpfmap.ClientsMap) -> None:
    with apps.App(apps.echo) as app:
        door = far.plain(verdicts.Choice(app.address))
        for _ in range(50):
            client = apps.connect(door)
            client.sendall(b"x")
            apps.read_exactly(client, 1)
            apps.reset(client)
        far.agent.await_ended(50)
    assert clients.entries() == []


def test_a_dial_that_fails_leaves_no_entry(far: harness.Node, clients: bpfmap.ClientsMap) -> None:
    with apps.dead_port() as dead:
        assert apps.is_refused(far.plain(verdicts.Choice(dead)))
    far.agent.await_ended()
    assert clients.entries() == []


def test_a_full_map_does_not_show_a_client_as_another(far: harness.Node, clients: bpfmap.ClientsMap) -> None:
    """1,024 entries fit; who finds no room is refused or goes without, and none gets another's entry."""
    far.set_stash(256)
    with apps.App(apps.echo) as app:
        door = far.plain(verdicts.Choice(app.address))
        opened = []
        try:
            for _ in range(1100):
                try:
                    client = apps.connect(door)
                    opened.append(client)
                    client.sendall(b"x")
                    apps.read_exactly(client, 1)
                except (ConnectionError, AssertionError):
                    break
            entries = {verdicts.read(abi.Addr(ip=k.ip, port=k.port)) for k, _ in clients.entries()}
            assert len(entries) == 1024
            assert entries <= set(app.peers)
        finally:
            for client in opened:
                client.close()
    process.eventually(clients.is_empty, "every entry is removed")
