"""HBONE both ways: client -> near engine -> tunnel -> far engine -> app; who is asked what, and who shares a tunnel."""

from __future__ import annotations

import pathlib
import re
import socket

import pytest

from ambient.dataplane import abi

from . import apps, h2peer, harness, pki, process, verdicts

pytestmark = pytest.mark.kernel


def exchange(address: apps.Address, message: bytes = b"hello") -> apps.Address:
    """One echoed message over a connection of its own; returns where it came from."""
    with apps.connect(address) as client:
        client.sendall(message)
        assert apps.read_exactly(client, len(message)) == message
        client.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(client) == b""
        return client.getsockname()[:2]


def test_a_client_reaches_the_app_through_two_engines(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app:
        exchange(pair.to(app.address))
        app.join()


def test_both_agents_are_asked_with_the_addresses_of_the_connection(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        client = exchange(door)
    (accepted,) = pair.near.agent.asked(abi.Type.ACCEPTED)
    assert (accepted.source, accepted.to) == (client, door)
    (request,) = pair.far.agent.asked(abi.Type.REQUEST)
    assert request.source[0] == "127.0.0.1"
    assert request.to == pair.tunnel
    assert harness.parse(request.authority) == app.address


def test_each_agent_is_shown_the_certificate_of_the_other_end(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app:
        exchange(pair.to(app.address))
    (near,) = pair.near.agent.asked(abi.Type.TUNNEL)
    (far,) = pair.far.agent.asked(abi.Type.TUNNEL)
    assert near.cert == pair.far.leaf.der
    assert far.cert == pair.near.leaf.der
    assert (near.body.target, near.body.listener) == (pair.TARGET, 0)
    assert far.body.target == 0
    assert far.body.listener != 0
    assert near.to == far.to == pair.tunnel
    assert near.source == far.source
    assert near.body.handshake_ns > 0
    assert far.body.handshake_ns > 0


def test_a_request_names_the_answer_that_accepted_its_tunnel(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app:
        exchange(pair.to(app.address))
    (request,) = pair.far.agent.asked(abi.Type.REQUEST)
    assert isinstance(pair.far.agent.answers[request.body.peer], verdicts.Accept)


def test_a_request_carries_the_real_client_the_baggage_and_a_trace(pair: harness.Pair) -> None:
    baggage = b"k8s.namespace.name=shop,service.name=web"
    pair.near.agent.handlers[abi.Type.ACCEPTED] = lambda question: verdicts.Carry(
        pair.near.choices[question.body.listener], baggage=baggage
    )
    with apps.App(apps.echo) as app:
        client = exchange(pair.to(app.address))
    (request,) = pair.far.agent.asked(abi.Type.REQUEST)
    headers = dict(request.headers)
    assert headers[":method"] == "CONNECT"
    assert headers["baggage"] == baggage.decode()
    assert re.fullmatch(rf'for="?{re.escape(client[0])}:{client[1]}"?', headers["forwarded"])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", headers["traceparent"])


def test_both_records_tell_the_same_story(pair: harness.Pair) -> None:
    def answer_long(sock: socket.socket) -> None:
        assert apps.read_to_end(sock) == b"hello"
        sock.sendall(b"world!!")

    with apps.App(answer_long) as app:
        door = pair.to(app.address)
        with apps.connect(door) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert apps.read_to_end(client) == b"world!!"
            source = client.getsockname()[:2]
    (near,) = pair.near.agent.await_ended()
    (far,) = pair.far.agent.await_ended()
    assert near.reason is far.reason is abi.Reason.CLOSED
    assert near.moved == far.moved == (5, 7)
    assert bytes(near.body.trace) == bytes(far.body.trace) != bytes(16)
    assert (near.source, near.to) == (source, door)
    assert near.body.target == pair.TARGET
    assert near.dialled == pair.tunnel
    assert far.to == far.dialled == app.address
    for record in (near, far):
        assert 0 < record.body.setup_ns <= record.body.duration_ns
        assert record.body.answer != 0


def test_connections_to_one_target_share_a_tunnel(pair: harness.Pair) -> None:
    pair.far.agent.handlers[abi.Type.TUNNEL] = lambda _: verdicts.Accept(remember=False)
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        for _ in range(20):
            exchange(door)
    pair.near.agent.await_ended(20)
    assert len(pair.far.agent.asked(abi.Type.TUNNEL)) == 1


def test_connections_to_different_targets_never_share_a_tunnel(pair: harness.Pair) -> None:
    pair.far.agent.handlers[abi.Type.TUNNEL] = lambda _: verdicts.Accept(remember=False)
    with apps.App(apps.echo) as app:
        exchange(pair.to(app.address))
        exchange(pair.near.outbound(pair.via_tunnel(app.address, target=pair.TARGET + 1)))
    assert len(pair.far.agent.asked(abi.Type.TUNNEL)) == 2
    assert {question.body.target for question in pair.near.agent.asked(abi.Type.TUNNEL)} == {77, 78}


def test_a_stream_that_moves_much_gets_no_new_neighbours(tmp_path: pathlib.Path) -> None:
    with harness.pair(tmp_path, elephant_bytes=100_000) as pair, apps.App(apps.echo) as app:
        pair.far.agent.handlers[abi.Type.TUNNEL] = lambda _: verdicts.Accept(remember=False)
        door = pair.to(app.address)
        with apps.connect(door) as elephant:
            for _ in range(10):
                elephant.sendall(bytes(30_000))
                apps.read_exactly(elephant, 30_000)
            for _ in range(3):
                exchange(door)
        assert len(pair.far.agent.asked(abi.Type.TUNNEL)) == 2


def test_an_idle_tunnel_is_closed_and_the_next_connection_opens_another(
    tmp_path: pathlib.Path, ca: pki.Authority
) -> None:
    with harness.node(tmp_path / "near", ca.svid(), tunnel_idle_s=1) as near, h2peer.Server(ca.svid()) as server:
        choice = verdicts.Choice(server.address, authority=("10.0.0.9", 80), target=1, context=harness.CONTEXT)
        door = near.outbound(choice)
        exchange(door)
        assert server.tunnels == 1
        process.eventually(lambda: server.peers[0].over, "the idle tunnel is closed")
        exchange(door)
        assert server.tunnels == 2


def test_a_choice_without_a_tunnel_is_dialled_in_the_clear(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app:
        exchange(pair.near.outbound(verdicts.Choice(app.address)))
        (record,) = pair.near.agent.await_ended()
    assert record.reason is abi.Reason.CLOSED
    assert record.dialled == app.address
    assert pair.far.agent.questions == []


def test_a_plaintext_connection_is_asked_about_and_carried_in(far: harness.Node) -> None:
    with apps.App(apps.echo) as app:
        door = far.plain(verdicts.Choice(app.address))
        client = exchange(door)
    (accepted,) = far.agent.asked(abi.Type.ACCEPTED)
    assert (accepted.source, accepted.to) == (client, door)
    (record,) = far.agent.await_ended()
    assert record.moved == (5, 5)


def test_ipv6_is_carried_like_ipv4(pair: harness.Pair) -> None:
    for node in (pair.near, pair.far):
        node.agent.pod(harness.POD + 1, family=socket.AF_INET6)
    tunnel = pair.far.tunnel("::1")
    pair.far.agent.handlers[abi.Type.REQUEST] = lambda question: verdicts.Carry(
        [verdicts.Choice(harness.parse(question.authority))], pod=harness.POD + 1
    )
    pair.near.agent.handlers[abi.Type.ACCEPTED] = lambda question: verdicts.Carry(
        pair.near.choices[question.body.listener], pod=harness.POD + 1
    )
    with apps.App(apps.echo, "::1") as app:
        door = pair.near.outbound(pair.via_tunnel(app.address, dial=tunnel), host="::1")
        client = exchange(door)
    (request,) = pair.far.agent.asked(abi.Type.REQUEST)
    assert request.authority == f"[::1]:{app.address[1]}"
    assert dict(request.headers)["forwarded"] == f'for="[::1]:{client[1]}"'
    assert pair.near.agent.asked(abi.Type.ACCEPTED)[0].source == client


def test_several_workers_share_the_connections(tmp_path: pathlib.Path) -> None:
    with harness.pair(tmp_path, threads=2) as pair, apps.App(apps.echo) as app:
        door = pair.to(app.address)
        for _ in range(50):
            exchange(door)
        assert len(pair.near.agent.await_ended(50)) == 50
        assert len(pair.far.agent.await_ended(50)) == 50
        assert pair.near.agent.hello.keys() == pair.far.agent.hello.keys() == {0, 1}
        assert len({hello.start_at for hello in pair.near.agent.hello.values()}) == 1
