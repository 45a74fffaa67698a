"""Certificates come, are replaced and expire: what is new serves new tunnels, what is expired serves none."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import time

import pytest

from ambient.dataplane import abi

from . import apps, h2peer, harness, pki, process, verdicts

pytestmark = pytest.mark.kernel

END = b"-----END CERTIFICATE-----\n"
SOON = datetime.timedelta(seconds=2)  # certificates have whole seconds only


def exchange(client: apps.socket.socket) -> None:
    client.sendall(b"hello")
    assert apps.read_exactly(client, 5) == b"hello"


@pytest.mark.parametrize("side", ["near", "far"])
def test_a_tunnel_ends_when_our_certificate_does(pair: harness.Pair, side: str) -> None:
    node = getattr(pair, side)
    node.agent.context(harness.CONTEXT, node.leaf, expires_ns=time.time_ns() + 700_000_000)
    with apps.App(apps.echo) as app, apps.connect(pair.to(app.address)) as client:
        exchange(client)
        started = time.monotonic()
        assert apps.is_reset(client)
        assert time.monotonic() - started < 3
    (record,) = node.agent.await_ended()
    assert record.reason is abi.Reason.EXPIRED


def test_a_tunnel_ends_when_the_certificate_of_its_client_does(far: harness.Node, ca: pki.Authority) -> None:
    with apps.App(apps.echo) as app, h2peer.dial(far.tunnel(), ca.svid(valid_for=SOON)) as client:
        assert client.ask(f"{app.address[0]}:{app.address[1]}").status == 200
        started = time.monotonic()
        while client.pump():
            pass
        assert time.monotonic() - started < 4
    (record,) = far.agent.await_ended()
    assert record.reason is abi.Reason.EXPIRED


def test_a_tunnel_ends_when_the_certificate_of_its_server_does(far: harness.Node, ca: pki.Authority) -> None:
    with h2peer.Server(ca.svid("shop", "db", valid_for=SOON)) as server:
        choice = verdicts.Choice(server.address, authority=("10.0.0.9", 80), target=4, context=harness.CONTEXT)
        with apps.connect(far.outbound(choice)) as client:
            exchange(client)
            assert apps.is_reset(client)
    (record,) = far.agent.await_ended()
    assert record.reason is abi.Reason.EXPIRED


def test_no_young_connection_is_on_a_tunnel_when_it_expires(pair: harness.Pair) -> None:
    """A tunnel takes none in the second half of its life: what comes then has a longer one before it."""
    life_s = 6
    pair.far.agent.context(harness.CONTEXT, pair.ca.svid("shop", "db", valid_for=datetime.timedelta(seconds=life_s)))
    pair.far.agent.inventory()
    began = time.monotonic()
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        with apps.connect(door) as old:
            exchange(old)
            time.sleep(life_s / 2 + 1.1)  # and one of its ticks
            pair.far.agent.context(harness.CONTEXT, pair.far.leaf)  # renewed meanwhile, as it would be
            pair.far.agent.inventory()
            with apps.connect(door) as young:
                exchange(young)
                exchange(old)
                assert apps.is_reset(old)
                assert time.monotonic() - began > life_s - 2, "the old one had its time"
                exchange(young)


def test_an_expired_certificate_opens_no_tunnel(pair: harness.Pair) -> None:
    pair.near.agent.context(harness.CONTEXT, pair.near.leaf, expires_ns=time.time_ns() - 1)
    with apps.App(apps.echo) as app:
        assert apps.is_refused(pair.to(app.address))
    (record,) = pair.near.agent.await_ended()
    assert record.reason is abi.Reason.NO_CONTEXT
    assert pair.far.agent.questions == []


def test_an_expired_certificate_accepts_no_tunnel(far: harness.Node, ca: pki.Authority) -> None:
    tunnel = far.tunnel()
    far.agent.context(harness.CONTEXT, far.leaf, expires_ns=time.time_ns() - 1)
    assert not is_let_in(tunnel, ca.svid())
    (record,) = far.agent.await_ended()
    assert record.reason is abi.Reason.NO_CONTEXT


def test_an_unknown_certificate_opens_no_tunnel(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app:
        door = pair.near.outbound(pair.via_tunnel(app.address, context=99))
        assert apps.is_refused(door)
    (record,) = pair.near.agent.await_ended()
    assert record.reason is abi.Reason.NO_CONTEXT


def test_a_new_certificate_serves_new_tunnels_and_the_old_ones_live_on(far: harness.Node, ca: pki.Authority) -> None:
    tunnel = far.tunnel()
    renewed = ca.svid("shop", "db")
    with apps.App(apps.echo) as app, h2peer.dial(tunnel, ca.svid()) as old:
        stream = old.ask(f"{app.address[0]}:{app.address[1]}")
        assert old.sock.getpeercert(binary_form=True) == far.leaf.der
        far.agent.context(harness.CONTEXT, renewed)
        far.agent.inventory()
        with h2peer.dial(tunnel, ca.svid()) as new:
            assert new.sock.getpeercert(binary_form=True) == renewed.der
            assert new.ask(f"{app.address[0]}:{app.address[1]}").status == 200
        old.send(stream, b"still", end=True)
        old.until(lambda: stream.ended)
        assert bytes(stream.data) == b"still"


def test_a_new_certificate_is_presented_on_new_tunnels(pair: harness.Pair) -> None:
    renewed = pair.ca.svid("shop", "web")
    with apps.App(apps.echo) as app, apps.connect(pair.to(app.address)) as client:
        exchange(client)
        pair.near.agent.context(harness.CONTEXT, renewed)
        with apps.connect(pair.near.outbound(pair.via_tunnel(app.address, target=78))) as another:
            exchange(another)
        exchange(client)
    assert [question.cert for question in pair.far.agent.asked(abi.Type.TUNNEL)] == [pair.near.leaf.der, renewed.der]


def test_an_old_tunnel_ends_with_the_certificate_it_was_made_with(pair: harness.Pair) -> None:
    """A renewed context must not prolong what was opened under the old certificate."""
    pair.near.agent.context(harness.CONTEXT, pair.near.leaf, expires_ns=time.time_ns() + 1_000_000_000)
    with apps.App(apps.echo) as app, apps.connect(pair.to(app.address)) as client:
        exchange(client)
        pair.near.agent.context(harness.CONTEXT, pair.ca.svid("shop", "web"))
        assert apps.is_reset(client)
        with apps.connect(pair.to(app.address)) as another:
            exchange(another)
    assert pair.near.agent.await_ended()[0].reason is abi.Reason.EXPIRED


def test_a_certificate_no_longer_named_makes_no_tunnel_and_those_made_with_it_live_on(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app, apps.connect(pair.to(app.address)) as client:
        exchange(client)
        for node in (pair.near, pair.far):
            node.agent.keep_contexts(98, 99)
            node.agent.inventory()
        assert apps.is_refused(pair.near.outbound(pair.via_tunnel(app.address, target=78)))
        assert not is_let_in(pair.tunnel, pair.ca.svid())
        exchange(client)
        pair.near.agent.context(harness.CONTEXT, pair.near.leaf)
        pair.far.agent.context(harness.CONTEXT, pair.far.leaf)
        with apps.connect(pair.near.outbound(pair.via_tunnel(app.address, target=79))) as another:
            exchange(another)
    for node in (pair.near, pair.far):
        assert abi.Reason.NO_CONTEXT in {record.reason for record in node.agent.await_ended(2)}


def test_what_is_named_is_kept(pair: harness.Pair) -> None:
    pair.near.agent.keep_contexts(98, harness.CONTEXT)
    with apps.App(apps.echo) as app, apps.connect(pair.to(app.address)) as client:
        exchange(client)


def test_a_key_nobody_uses_any_more_is_not_in_the_engines_memory(pair: harness.Pair) -> None:
    """The last tunnel made with it takes it along."""
    key = pair.near.leaf.private_number
    engine = pair.near.engine
    with apps.App(apps.echo) as app:
        with apps.connect(pair.to(app.address)) as client:
            exchange(client)
            if not process.sanitized():  # whose memory is too large to be read
                assert engine.holds(key), "the test looks in the wrong place"
            pair.near.agent.keep_contexts()
            pair.near.agent.inventory()
            exchange(client)
        pair.near.agent.await_ended(1)
        pair.near.agent.refer(abi.Type.LEAVE, harness.POD)
        pair.near.agent.wait(lambda: pair.near.agent.idle == [harness.POD], "IDLE")
    if not process.sanitized():
        assert not engine.holds(key)


def test_a_listener_told_again_changes_its_context(far: harness.Node, ca: pki.Authority) -> None:
    number, tunnel = far.listen(abi.Role.INBOUND_TUNNEL)
    other = ca.svid("shop", "other")
    far.agent.context(2, other)
    far.agent.listen(number, far.listener(number), abi.Role.INBOUND_TUNNEL, context=2)
    far.agent.inventory()
    with h2peer.dial(tunnel, ca.svid()) as client:
        assert client.sock.getpeercert(binary_form=True) == other.der


def test_several_roots_are_trusted_at_once(tmp_path: pathlib.Path) -> None:
    """The middle of a root rotation: both ends trust both roots, each shows a certificate of its own."""
    old, new = pki.Authority(), pki.Authority()
    both = [old.root_pem, new.root_pem]
    with harness.node(tmp_path / "far", old.svid("shop", "db", roots=both)) as far:
        tunnel = far.tunnel()
        for authority in (old, new):
            with apps.App(apps.echo) as app, h2peer.dial(tunnel, authority.svid(roots=both)) as client:
                assert client.ask(f"{app.address[0]}:{app.address[1]}").status == 200
        assert not is_let_in(tunnel, pki.Authority().svid(roots=both))


def test_peers_that_trust_a_root_meet_through_its_intermediates(tmp_path: pathlib.Path) -> None:
    """Each end shows all that is between its leaf and the root; the other end has the root only."""
    root = pki.Authority(below=1)
    one, two = (pki.Authority(parent=root) for _ in range(2))
    with harness.node(tmp_path / "far", one.svid("shop", "db")) as far:
        tunnel = far.tunnel()
        for client in (two.svid(), root.svid()):
            with apps.App(apps.echo) as app, h2peer.dial(tunnel, client) as peer:
                assert peer.ask(f"{app.address[0]}:{app.address[1]}").status == 200
        whole = two.svid()
        leaf, *_ = whole.cert_pem.partition(END)
        assert not is_let_in(tunnel, dataclasses.replace(whole, cert_pem=leaf + END)), "the intermediate is missing"
        assert not is_let_in(tunnel, pki.Authority(parent=pki.Authority(below=1)).svid(roots=[root.root_pem]))


def is_let_in(tunnel: apps.Address, leaf: pki.Leaf) -> bool:
    """Does a request over a tunnel of this client get an answer, whatever it is?"""
    try:
        with h2peer.dial(tunnel, leaf) as client:
            stream = client.open("127.0.0.1:9")
            while not stream.headers:
                if not client.pump():
                    return False
            return True
    except OSError:  # TLS errors are OSErrors
        return False
