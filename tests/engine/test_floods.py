"""HTTP/2 floods by a peer with a good certificate: hung up on, recorded, and no neighbour suffers; nothing leaks."""

from __future__ import annotations

import collections
import random
import threading

import pytest

from ambient.dataplane import abi

from . import apps, attacks, h2peer, harness, pki, process

pytestmark = pytest.mark.kernel

BAD_PEERS = 10_000
TLS_SHARE = 0.08  # of them complete a handshake or most of it, which costs milliseconds
MIB = 1 << 20


@pytest.fixture
def attacker(far: harness.Node, ca: pki.Authority) -> attacks.Attacker:
    return attacks.Attacker(far.tunnel(), ca.svid("shop", "web"), ca)


@pytest.mark.parametrize("kind", attacks.FLOODS)
def test_a_flood_ends_and_harms_nobody(
    far: harness.Node, attacker: attacks.Attacker, ca: pki.Authority, kind: str
) -> None:
    with apps.App(apps.echo) as app, h2peer.dial(attacker.tunnel, ca.svid("shop", "good")) as neighbour:
        far.agent.handlers[abi.Type.REQUEST] = lambda question: (
            harness.verdicts.Carry([harness.verdicts.Choice(harness.parse(question.authority))])
            if question.authority == authority
            else harness.verdicts.Refuse()
        )
        authority = f"{app.address[0]}:{app.address[1]}"
        stream = neighbour.ask(authority)
        before = far.engine.rss()
        assert attacks.FLOODS[kind](attacker), "the victim never hung up"
        neighbour.send(stream, b"hello", end=True)
        neighbour.until(lambda: stream.ended)
        assert bytes(stream.data) == b"hello"
        if not process.sanitized():
            assert far.engine.rss() - before < 8 * MIB
    far.agent.wait(
        lambda: any(record.reason is abi.Reason.PROTOCOL for record in far.agent.ended), "a record of the flood"
    )
    assert app.connected == 1


def test_a_peer_that_opens_no_window_bounds_our_memory(
    far: harness.Node, attacker: attacks.Attacker, ca: pki.Authority
) -> None:
    """Zero windows: the app wants to send, its peer does not let us."""
    far.set_stash(128)
    streams = 50
    with apps.App(lambda sock: flood_until_gone(sock)) as app:
        authority = f"{app.address[0]}:{app.address[1]}"
        with h2peer.dial(attacker.tunnel, attacker.leaf) as hostile, h2peer.dial(attacker.tunnel, ca.svid()) as good:
            hostile.h2.update_settings({4: 0})
            hostile.flush()
            before = far.engine.rss()
            for _ in range(streams):
                assert hostile.ask(authority).status == 200
            app.await_connected(streams)
            victim = good.ask(authority)
            good.until(lambda: len(victim.data) > MIB)
            if not process.sanitized():
                assert (far.engine.rss() - before) / streams < 512 << 10
        app.join()


def flood_until_gone(sock: apps.socket.socket) -> None:
    try:
        while True:
            sock.sendall(bytes(65536))
    except (ConnectionError, TimeoutError):
        return


def test_ten_thousand_bad_peers_leave_nothing_behind(far: harness.Node, attacker: attacks.Attacker) -> None:
    far.agent.handlers[abi.Type.REQUEST] = lambda _: harness.verdicts.Refuse()
    for attack in (*attacks.BEFORE_TLS.values(), *attacks.BROKEN.values()):
        attack(attacker)  # what is allocated once is allocated now
    await_quiet(far)
    random.seed(3)
    run(attacker, BAD_PEERS // 10)
    await_quiet(far)
    fds, rss = far.engine.fds(), far.engine.rss()
    run(attacker, BAD_PEERS)
    await_quiet(far)
    process.eventually(lambda: far.engine.fds() <= fds, "all descriptors are closed")
    if not process.sanitized():
        assert far.engine.rss() - rss < 2 * MIB
    reasons = collections.Counter(record.reason for record in far.agent.ended)
    assert reasons[abi.Reason.HANDSHAKE] > BAD_PEERS / 2


def run(attacker: attacks.Attacker, count: int) -> None:
    """So many attacks of all kinds, a few at a time."""
    cheap = [attacks.BEFORE_TLS[kind] for kind in attacks.CHEAP]
    dear = [*attacks.BROKEN.values(), *(a for kind, a in attacks.BEFORE_TLS.items() if kind not in attacks.CHEAP)]
    errors: list[BaseException] = []

    def some(share: int) -> None:
        try:
            for _ in range(share):
                random.choice(dear if random.random() < TLS_SHARE else cheap)(attacker)
        except BaseException as error:  # noqa: BLE001 raised below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=some, args=(count // 4,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def await_quiet(far: harness.Node) -> None:
    """Every connection accepted so far is over: a round through the engine finds the number of descriptors at rest."""
    counts: collections.deque[int] = collections.deque(maxlen=10)

    def at_rest() -> bool:
        counts.append(far.engine.fds())
        return len(counts) == 10 and len(set(counts)) == 1

    process.eventually(at_rest, "the number of descriptors rests", 20.0)
