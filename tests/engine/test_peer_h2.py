"""HBONE against the `h2` library, as client and as server."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import hyperframe.frame
import pytest

from ambient.dataplane import abi

from . import apps, h2peer, harness, pki, verdicts

pytestmark = pytest.mark.kernel


def authority(address: apps.Address) -> str:
    return f"{address[0]}:{address[1]}"


@pytest.fixture
def client(far: harness.Node, ca: pki.Authority) -> Iterator[h2peer.Peer]:
    """An h2 client on a tunnel to far."""
    with h2peer.dial(far.tunnel(), ca.svid("shop", "web")) as peer:
        yield peer


@pytest.fixture
def near(far: harness.Node) -> harness.Node:
    """The same node in its other role: the client of an h2 server."""
    return far


def through(near: harness.Node, server: h2peer.Server) -> apps.Address:
    choice = verdicts.Choice(server.address, authority=("10.0.0.9", 8080), target=5, context=harness.CONTEXT)
    return near.outbound(choice)


# h2 as the client


def test_a_stream_of_an_h2_client_is_carried(far: harness.Node, client: h2peer.Peer) -> None:
    with apps.App(apps.echo) as app:
        stream = client.ask(authority(app.address))
        assert stream.status == 200
        client.send(stream, b"hello", end=True)
        client.until(lambda: stream.ended)
        assert bytes(stream.data) == b"hello"
    (record,) = far.agent.await_ended()
    assert (record.reason, record.moved) == (abi.Reason.CLOSED, (5, 5))


def test_a_mebibyte_goes_both_ways_within_small_windows(client: h2peer.Peer) -> None:
    message = apps.pattern(0, 1 << 20)
    with apps.App(apps.echo) as app:
        stream = client.ask(authority(app.address))
        client.send(stream, message, end=True)
        client.until(lambda: stream.ended)
    assert bytes(stream.data) == message


def test_a_hundred_streams_live_on_one_tunnel(far: harness.Node, client: h2peer.Peer) -> None:
    far.set_stash(128)
    with apps.App(apps.echo) as app:
        streams = [client.open(authority(app.address)) for _ in range(100)]
        for number, stream in enumerate(streams):
            client.until(lambda stream=stream: bool(stream.headers))
            client.send(stream, b"%03d" % number)
        for number, stream in enumerate(streams):
            client.until(lambda stream=stream: len(stream.data) == 3)
            assert bytes(stream.data) == b"%03d" % number
            client.send(stream, b"", end=True)
        client.until(lambda: all(stream.ended for stream in streams))
    assert len(far.agent.asked(abi.Type.TUNNEL)) == 1
    assert len(far.agent.await_ended(100)) == 100


def test_data_that_comes_before_the_decision_waits_for_it(far: harness.Node, client: h2peer.Peer) -> None:
    far.agent.handlers[abi.Type.REQUEST] = lambda _: None
    with apps.App(apps.echo) as app:
        stream = client.open(authority(app.address))
        client.send(stream, b"too early?", end=True)
        (question,) = far.agent.await_questions(abi.Type.REQUEST)
        assert app.connected == 0
        far.agent.answer(question, verdicts.Carry([verdicts.Choice(app.address)]))
        client.until(lambda: stream.ended)
    assert bytes(stream.data) == b"too early?"


def test_data_that_comes_before_a_refusal_never_reaches_the_app(far: harness.Node, client: h2peer.Peer) -> None:
    far.agent.handlers[abi.Type.REQUEST] = lambda _: verdicts.Refuse(status=401)
    with apps.App(apps.echo) as app:
        stream = client.open(authority(app.address))
        client.send(stream, b"secret")
        client.until(lambda: bool(stream.headers))
        assert stream.status == 401
        assert app.connected == 0


def test_a_stream_reset_by_the_client_resets_the_app(far: harness.Node, client: h2peer.Peer) -> None:
    seen: list[bool] = []
    with apps.App(lambda sock: seen.append(apps.is_reset(sock))) as app:
        stream = client.ask(authority(app.address))
        app.await_connected()
        client.reset(stream)
        app.join()
    assert seen == [True]
    (record,) = far.agent.await_ended()
    assert record.reason is abi.Reason.RESET_CLIENT


def test_a_reset_of_the_app_resets_the_stream(client: h2peer.Peer) -> None:
    with apps.App(apps.reset) as app:
        stream = client.open(authority(app.address))
        client.until(lambda: stream.reset is not None)
    assert not stream.ended


def test_the_end_of_the_app_ends_the_stream_and_not_the_other_way(client: h2peer.Peer) -> None:
    def finish_first(sock: socket.socket) -> None:
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(sock) == b"more"

    with apps.App(finish_first) as app:
        stream = client.ask(authority(app.address))
        client.until(lambda: stream.ended)
        client.send(stream, b"more", end=True)
        app.join()
    assert bytes(stream.data) == b"bye"


def test_a_client_that_hangs_up_ends_its_connections(far: harness.Node, client: h2peer.Peer) -> None:
    ends: list[int] = []

    def watch(sock: socket.socket) -> None:
        try:
            ends.append(len(apps.read_to_end(sock)))
        except ConnectionResetError:
            ends.append(-1)

    far.set_stash(64)
    with apps.App(watch) as app:
        for _ in range(3):
            client.ask(authority(app.address))
        app.await_connected(3)
        client.close()
        app.join()
    assert ends == [-1] * 3, "the app must not take an aborted connection for a finished one"
    assert {record.reason for record in far.agent.await_ended(3)} <= {
        abi.Reason.TUNNEL_LOST,
        abi.Reason.RESET_CLIENT,
    }


def test_a_client_may_ping_and_change_settings(client: h2peer.Peer) -> None:
    with apps.App(apps.echo) as app:
        stream = client.ask(authority(app.address))
        client.h2.ping(b"8 bytes!")
        client.h2.update_settings({4: 1000})  # INITIAL_WINDOW_SIZE, for open streams too
        client.flush()
        client.send(stream, bytes(50_000), end=True)
        client.until(lambda: stream.ended)
    assert len(stream.data) == 50_000


# h2 as the server


def test_a_client_is_carried_by_an_h2_server(near: harness.Node, ca: pki.Authority) -> None:
    with h2peer.Server(ca.svid("shop", "web")) as server, apps.connect(through(near, server)) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(client) == b"hello"
    assert server.requests[0][":method"] == "CONNECT"
    assert server.requests[0][":authority"] == "10.0.0.9:8080"
    assert not {":scheme", ":path"} & server.requests[0].keys()
    assert server.clients == [near.leaf.der]


def test_a_mebibyte_comes_back_from_an_h2_server(near: harness.Node, ca: pki.Authority) -> None:
    with h2peer.Server(ca.svid("shop", "web")) as server, apps.connect(through(near, server)) as client:
        apps.send_pattern(client, 1 << 20)
        assert apps.expect_pattern(client, 1 << 20) == 1 << 20


def test_connections_share_the_tunnel_to_an_h2_server(near: harness.Node, ca: pki.Authority) -> None:
    with h2peer.Server(ca.svid("shop", "web")) as server:
        door = through(near, server)
        clients = [apps.connect(door) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(b"%02d" % number)
        for number, client in enumerate(clients):
            assert apps.read_exactly(client, 2) == b"%02d" % number
            client.close()
        near.agent.await_ended(20)
        assert server.tunnels == 1


def test_an_h2_server_may_speak_first(near: harness.Node, ca: pki.Authority) -> None:
    with (
        h2peer.Server(ca.svid("shop", "web"), greeting=b"220 hi") as server,
        apps.connect(through(near, server)) as client,
    ):
        assert apps.read_exactly(client, 6) == b"220 hi"


def test_a_stream_reset_by_an_h2_server_resets_the_client(near: harness.Node, ca: pki.Authority) -> None:
    with (
        h2peer.Server(ca.svid("shop", "web"), kill=b"die") as server,
        apps.connect(through(near, server)) as client,
    ):
        client.sendall(b"die")
        assert apps.is_reset(client)
    (record,) = near.agent.await_ended()
    assert record.reason is abi.Reason.RESET_SERVER


def test_what_an_h2_server_said_before_it_stopped_listening_arrives(near: harness.Node, ca: pki.Authority) -> None:
    """END_STREAM, then RST_STREAM(NO_ERROR): a complete answer from a server that wants no more (RFC 9113 8.1)."""
    with (
        h2peer.Server(ca.svid("shop", "web"), greeting=bytes(60_000), stop=True) as server,
        apps.connect(through(near, server)) as client,
    ):
        assert len(apps.read_to_end(client)) == 60_000


@pytest.mark.parametrize("status", [400, 401, 404, 503])
def test_a_request_refused_by_an_h2_server_resets_the_client(
    near: harness.Node, ca: pki.Authority, status: int
) -> None:
    with h2peer.Server(ca.svid("shop", "web"), status=status) as server:
        assert apps.is_refused(through(near, server))
    (record,) = near.agent.await_ended()
    assert (record.reason, record.body.error) == (abi.Reason.PEER_REFUSED, status)


def test_a_goaway_sends_new_connections_to_a_new_tunnel(near: harness.Node, ca: pki.Authority) -> None:
    with h2peer.Server(ca.svid("shop", "web")) as server:
        door = through(near, server)
        with apps.connect(door) as old:
            old.sendall(b"one")
            apps.read_exactly(old, 3)
            server.peers[0].inject = hyperframe.frame.GoAwayFrame(last_stream_id=1).serialize()
            old.sendall(b"two")  # its echo takes the GOAWAY along
            apps.read_exactly(old, 3)
            with apps.connect(door) as new:
                new.sendall(b"one")
                assert apps.read_exactly(new, 3) == b"one"
            old.sendall(b"two")
            assert apps.read_exactly(old, 3) == b"two"
        assert server.tunnels == 2
    assert near.agent.await_ended(2)


def test_no_more_streams_are_opened_than_the_server_grants(near: harness.Node, ca: pki.Authority) -> None:
    with h2peer.Server(ca.svid("shop", "web"), max_streams=3) as server:
        door = through(near, server)
        clients = []
        for _ in range(9):
            clients.append(apps.connect(door))
            clients[-1].sendall(b"x")
            # one after the other: what a peer grants is known only when it has spoken
            assert apps.read_exactly(clients[-1], 1) == b"x"
        assert all(len(peer.streams) <= 3 for peer in server.peers)
        for client in clients:
            client.close()


def test_a_stranger_at_the_address_of_the_server_gets_no_request(near: harness.Node, ca: pki.Authority) -> None:
    near.agent.handlers[abi.Type.TUNNEL] = lambda _: verdicts.Refuse()
    with h2peer.Server(ca.svid("other", "evil")) as server:
        assert apps.is_refused(through(near, server), b"secret")
        assert server.requests == []
    (record,) = near.agent.await_ended()
    assert record.reason is abi.Reason.STRANGER


SERVER_CERTIFICATES = {
    "foreign root": lambda ca: pki.Authority().svid("shop", "web", roots=[ca.root_pem]),
    "expired": lambda ca: ca.svid("shop", "web", valid_from=-2 * pki.HOUR, valid_for=-pki.HOUR),
    "not yet valid": lambda ca: ca.svid("shop", "web", valid_from=pki.HOUR, valid_for=2 * pki.HOUR),
}


@pytest.mark.parametrize("kind", SERVER_CERTIFICATES)
def test_a_server_without_a_valid_certificate_gets_no_request(near: harness.Node, ca: pki.Authority, kind: str) -> None:
    with h2peer.Server(SERVER_CERTIFICATES[kind](ca)) as server:
        assert apps.is_refused(through(near, server))
        assert server.requests == []
    (record,) = near.agent.await_ended()
    assert record.reason is abi.Reason.HANDSHAKE
    assert "certificate" in record.text
    assert near.agent.asked(abi.Type.TUNNEL) == []
