"""Several choices: which is dialled, what happens when it fails, and what the agent hears of it."""

from __future__ import annotations

import collections
import dataclasses
import errno
import pathlib

import pytest

from ambient.dataplane import abi

from . import apps, h2peer, harness, pki, verdicts

pytestmark = pytest.mark.kernel


def last(choice: verdicts.Choice) -> verdicts.Choice:
    """The same, to be tried only when all others failed."""
    return dataclasses.replace(choice, weight=0)


def test_the_next_choice_is_tried_when_a_tunnel_cannot_be_dialled(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app, apps.dead_port() as dead:
        door = pair.near.outbound(pair.via_tunnel(app.address, dial=dead, target=1), last(pair.via_tunnel(app.address)))
        with apps.connect(door) as client:
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"
    (record,) = pair.near.agent.await_ended()
    assert (record.reason, record.dialled, record.body.target) == (abi.Reason.CLOSED, pair.tunnel, pair.TARGET)
    (failed,) = pair.near.agent.await_dial_failures()
    assert (failed.target, verdicts.read(failed.dial)) == (1, dead)
    assert (failed.reason, failed.error) == (abi.Reason.DIAL, errno.ECONNREFUSED)
    assert failed.answer == record.body.answer


def test_the_next_choice_is_tried_when_a_dial_takes_too_long(tmp_path: pathlib.Path) -> None:
    with harness.pair(tmp_path, connect_ms=300) as pair, apps.App(apps.echo) as app, apps.mute_port() as mute:
        door = pair.near.outbound(pair.via_tunnel(app.address, dial=mute, target=1), last(pair.via_tunnel(app.address)))
        with apps.connect(door) as client:
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"
        (failed,) = pair.near.agent.await_dial_failures()
        assert failed.target == 1


def test_the_next_choice_is_tried_when_the_first_speaks_no_tls(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app, apps.App(apps.greet) as no_proxy:
        door = pair.near.outbound(
            pair.via_tunnel(app.address, dial=no_proxy.address, target=1), last(pair.via_tunnel(app.address))
        )
        with apps.connect(door) as client:
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"
    (failed,) = pair.near.agent.await_dial_failures()
    assert (failed.target, failed.reason) == (1, abi.Reason.HANDSHAKE)


def test_the_next_choice_is_tried_when_the_first_is_a_stranger(pair: harness.Pair) -> None:
    pair.near.agent.handlers[abi.Type.TUNNEL] = lambda question: (
        verdicts.Refuse() if question.body.target == 1 else verdicts.Accept()
    )
    with apps.App(apps.echo) as app, h2peer.Server(pair.ca.svid("other", "evil")) as stranger:
        door = pair.near.outbound(
            pair.via_tunnel(app.address, dial=stranger.address, target=1), last(pair.via_tunnel(app.address))
        )
        with apps.connect(door) as client:
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"
        assert stranger.requests == []
    (failed,) = pair.near.agent.await_dial_failures()
    assert (failed.target, failed.reason) == (1, abi.Reason.STRANGER)


def test_what_the_client_said_at_once_goes_to_the_choice_that_works(pair: harness.Pair) -> None:
    """Early data went to a proxy that then could not reach its app: the next one gets it all, once."""
    with apps.App(apps.echo) as app, h2peer.Server(pair.ca.svid("shop", "db"), status=503) as broken:
        door = pair.near.outbound(
            pair.via_tunnel(app.address, dial=broken.address, target=1), last(pair.via_tunnel(app.address))
        )
        with apps.connect(door) as client:
            apps.send_pattern(client, 10_000)
            assert apps.expect_pattern(client, 10_000) == 10_000
    (failed,) = pair.near.agent.await_dial_failures()
    assert (failed.target, failed.reason, failed.error) == (1, abi.Reason.PEER_REFUSED, 503)
    (record,) = pair.near.agent.await_ended()
    assert record.moved == (10_000, 10_000)


def test_only_so_many_further_choices_are_tried(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with (
        harness.node(tmp_path / "near", ca.svid(), retries=2) as near,
        apps.dead_port() as one,
        apps.dead_port() as two,
        apps.dead_port() as three,
        apps.dead_port() as four,
    ):
        door = near.outbound(*(verdicts.Choice(address) for address in (one, two, three, four)))
        assert apps.is_refused(door)
        (record,) = near.agent.await_ended()
        assert (record.reason, record.body.error) == (abi.Reason.DIAL, errno.ECONNREFUSED)
        tried = [verdicts.read(failed.dial) for failed in near.agent.await_dial_failures(3)]
        assert len(tried) == len(set(tried)) == 3


def test_a_clear_dial_that_fails_is_retried_too(far: harness.Node) -> None:
    with apps.App(apps.echo) as app, apps.dead_port() as dead:
        door = far.outbound(verdicts.Choice(dead), last(verdicts.Choice(app.address)))
        with apps.connect(door) as client:
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"
    assert [verdicts.read(failed.dial) for failed in far.agent.await_dial_failures()] == [dead]


def test_an_app_that_cannot_be_dialled_is_a_503_to_its_peer(far: harness.Node, ca: pki.Authority) -> None:
    with apps.dead_port() as dead, h2peer.dial(far.tunnel(), ca.svid()) as client:
        assert client.ask(f"{dead[0]}:{dead[1]}").status == 503
    (record,) = far.agent.await_ended()
    assert (record.reason, record.body.error) == (abi.Reason.DIAL, errno.ECONNREFUSED)


def test_an_app_that_cannot_be_dialled_resets_the_client_on_the_other_node(pair: harness.Pair) -> None:
    with apps.dead_port() as dead:
        assert apps.is_refused(pair.to(dead))
    (near,) = pair.near.agent.await_ended()
    assert (near.reason, near.body.error) == (abi.Reason.PEER_REFUSED, 503)
    (far,) = pair.far.agent.await_ended()
    assert far.reason is abi.Reason.DIAL


def test_choices_are_taken_by_weight(far: harness.Node) -> None:
    taken: collections.Counter[str] = collections.Counter()

    def app(name: str) -> apps.App:
        return apps.App(lambda sock: sock.sendall(name.encode()))

    with app("three") as three, app("one") as one, app("none") as none:
        door = far.outbound(
            verdicts.Choice(three.address, weight=3),
            verdicts.Choice(one.address, weight=1),
            verdicts.Choice(none.address, weight=0),
        )
        for _ in range(400):
            with apps.connect(door) as client:
                taken[apps.read_to_end(client).decode()] += 1
    assert taken.keys() == {"three", "one"}
    # 400 draws with p = 1/4: mean 100, deviation 8.7; six of them is never
    assert 48 < taken["one"] < 152
