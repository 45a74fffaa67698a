"""Every phase of a connection has a deadline; when it passes, the connection ends with its reason and not before."""

from __future__ import annotations

import pathlib
import socket
import threading
import time

import pytest

from ambient.dataplane import abi
from tests import slowness

from . import apps, h2peer, harness, pki, verdicts

pytestmark = pytest.mark.kernel

SHORT = 300  # ms
SLACK = slowness.seconds(1.5)  # a loaded machine may add


class Took:
    """How long a block took; asserts that it was the deadline and nothing else."""

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, failed: object, *_: object) -> None:
        took = time.monotonic() - self._started
        if failed is None:
            assert SHORT / 1000 * 0.9 <= took <= SHORT / 1000 + SLACK, f"took {took:.3f} s"


@pytest.mark.parametrize("path", ["tunnel", "clear"])
def test_a_dial_that_nobody_answers(tmp_path: pathlib.Path, ca: pki.Authority, path: str) -> None:
    with harness.node(tmp_path / "near", ca.svid(), connect_ms=SHORT) as near, apps.mute_port() as mute:
        choice = verdicts.Choice(mute)
        if path == "tunnel":
            choice = verdicts.Choice(mute, authority=("10.0.0.9", 80), target=1, context=harness.CONTEXT)
        door = near.outbound(choice)
        with Took():
            assert apps.is_refused(door)
        (record,) = near.agent.await_ended()
        assert record.reason in (abi.Reason.DIAL, abi.Reason.TIMEOUT)
        assert len(near.agent.await_dial_failures()) == 1


def test_an_app_that_does_not_answer_our_dial_is_a_failure_of_the_server(
    tmp_path: pathlib.Path, ca: pki.Authority
) -> None:
    with (
        harness.node(tmp_path / "far", ca.svid("shop", "db"), connect_ms=SHORT) as far,
        apps.mute_port() as mute,
        h2peer.dial(far.tunnel(), ca.svid()) as client,
    ):
        with Took():
            assert client.ask(f"{mute[0]}:{mute[1]}").status in (503, 504)
        (record,) = far.agent.await_ended()
        assert record.reason in (abi.Reason.DIAL, abi.Reason.TIMEOUT)


def test_a_proxy_that_accepts_and_never_speaks_tls(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with harness.node(tmp_path / "near", ca.svid(), handshake_ms=SHORT) as near, apps.App(apps.read_to_end) as mute:
        choice = verdicts.Choice(mute.address, authority=("10.0.0.9", 80), target=1, context=harness.CONTEXT)
        door = near.outbound(choice)
        with Took():
            assert apps.is_refused(door)
        (record,) = near.agent.await_ended()
        assert record.reason in (abi.Reason.HANDSHAKE, abi.Reason.TIMEOUT)


def test_a_client_that_dials_a_tunnel_and_never_speaks_tls(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with harness.node(tmp_path / "far", ca.svid("shop", "db"), handshake_ms=SHORT) as far:
        tunnel = far.tunnel()
        with Took(), apps.connect(tunnel) as client:
            apps.is_reset(client)
        (record,) = far.agent.await_ended()
        assert record.reason in (abi.Reason.HANDSHAKE, abi.Reason.TIMEOUT)


def test_a_proxy_that_never_answers_our_request(tmp_path: pathlib.Path) -> None:
    with harness.pair(tmp_path) as pair:
        pair.near.agent.settings(request_ms=SHORT // 2, answer_ms=SHORT // 2)
        pair.far.agent.handlers[abi.Type.REQUEST] = lambda _: None
        door = pair.to(("127.0.0.1", 9))
        with Took():
            assert apps.is_refused(door)
        (near,) = pair.near.agent.await_ended()
        assert near.reason is abi.Reason.TIMEOUT
        (far,) = pair.far.agent.await_ended()
        assert far.reason is abi.Reason.RESET_CLIENT


def test_a_request_waits_for_the_agent_of_the_other_side_as_long_as_for_ours(tmp_path: pathlib.Path) -> None:
    """Its agent is away for longer than an answer may take otherwise; its node lives."""
    with harness.pair(tmp_path) as pair, apps.App(apps.echo) as app:
        pair.near.agent.settings(request_ms=SHORT, answer_ms=5000)
        asked = threading.Event()

        def later(question: verdicts.Question) -> None:
            answer = threading.Timer(
                2 * SHORT / 1000, pair.far.agent.answer, (question, verdicts.Carry([verdicts.Choice(app.address)]))
            )
            answer.start()
            asked.set()

        pair.far.agent.handlers[abi.Type.REQUEST] = later
        with apps.connect(pair.to(app.address)) as client:
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"
        assert asked.is_set()


@pytest.mark.parametrize("role", [abi.Role.OUTBOUND, abi.Role.INBOUND_PLAIN], ids=lambda role: role.name)
def test_an_accepted_connection_that_the_agent_says_nothing_about(
    tmp_path: pathlib.Path, ca: pki.Authority, role: abi.Role
) -> None:
    with harness.node(tmp_path / "near", ca.svid(), answer_ms=SHORT) as near:
        near.agent.handlers[abi.Type.ACCEPTED] = lambda _: None
        _, door = near.listen(role)
        with Took():
            assert apps.is_refused(door)
        (record,) = near.agent.await_ended()
        assert (record.reason, record.body.answer) == (abi.Reason.NO_ANSWER, 0)


def test_a_request_that_the_agent_says_nothing_about(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with harness.node(tmp_path / "far", ca.svid("shop", "db"), answer_ms=SHORT) as far:
        far.agent.handlers[abi.Type.REQUEST] = lambda _: None
        with h2peer.dial(far.tunnel(), ca.svid()) as client, Took():
            assert client.ask("10.0.0.9:80").status == 503
        (record,) = far.agent.await_ended()
        assert record.reason is abi.Reason.NO_ANSWER


def test_a_peer_that_the_agent_says_nothing_about(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with harness.node(tmp_path / "far", ca.svid("shop", "db"), answer_ms=SHORT) as far:
        far.agent.handlers[abi.Type.TUNNEL] = lambda _: None
        tunnel = far.tunnel()
        with Took(), h2peer.dial(tunnel, ca.svid()) as client:
            client.open("10.0.0.9:80")
            while client.pump():
                pass
        assert far.agent.asked(abi.Type.REQUEST) == []


def test_an_answer_that_comes_too_late_changes_nothing(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with harness.node(tmp_path / "near", ca.svid(), answer_ms=SHORT) as near, apps.App(apps.echo) as app:
        near.agent.handlers[abi.Type.ACCEPTED] = lambda _: None
        door = near.outbound()
        assert apps.is_refused(door)
        near.agent.await_ended()
        (question,) = near.agent.asked(abi.Type.ACCEPTED)
        near.agent.answer(question, verdicts.Carry([verdicts.Choice(app.address)]))
        near.agent.inventory()  # the engine has read the answer when it answers this
        assert (app.connected, len(near.agent.ended), near.agent.lost) == (0, 1, set())


def test_a_pod_whose_sockets_ran_out(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with harness.node(tmp_path / "near", ca.svid(), connect_ms=SHORT) as near, apps.App(apps.echo) as app:
        near.agent.send(harness.agent.wire.Message(abi.Type.POD, abi.Pod(pod=9, stash_family=socket.AF_INET)))
        near.agent.restock = False
        near.agent.handlers[abi.Type.ACCEPTED] = lambda _: verdicts.Carry([verdicts.Choice(app.address)], pod=9)
        door = near.outbound()
        with Took():
            assert apps.is_refused(door)
        (record,) = near.agent.await_ended()
        assert record.reason is abi.Reason.NO_SOCKET


def test_a_connection_waits_for_sockets_that_are_on_their_way(far: harness.Node) -> None:
    far.agent.restock = False
    far.agent.handlers[abi.Type.ACCEPTED] = lambda question: verdicts.Carry(far.choices[question.body.listener], pod=9)
    far.agent.send(harness.agent.wire.Message(abi.Type.POD, abi.Pod(pod=9, stash_family=socket.AF_INET, stash_want=4)))
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        client.sendall(b"hello")
        far.agent.wait(lambda: any(low.pod == 9 for low in far.agent.stash_low), "STASH_LOW")
        far.agent.stash(9, 4, worker=0)
        assert apps.read_exactly(client, 5) == b"hello"


def test_an_open_connection_without_traffic_outlives_every_deadline(tmp_path: pathlib.Path) -> None:
    short = {"connect_ms": SHORT, "handshake_ms": SHORT, "request_ms": SHORT, "answer_ms": SHORT}
    with (
        harness.pair(tmp_path, **short) as pair,
        apps.App(apps.echo) as app,
        apps.connect(pair.to(app.address)) as client,
    ):
        client.sendall(b"hello")
        apps.read_exactly(client, 5)
        client.settimeout(3 * SHORT / 1000)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(apps.PATIENCE)
        client.sendall(b"still")
        assert apps.read_exactly(client, 5) == b"still"
