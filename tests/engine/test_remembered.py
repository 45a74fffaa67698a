"""Remembered answers are asked for once; FORGET, their number of uses and CUT end them; REFUSE is an answer too."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from ambient.dataplane import abi

from . import apps, h2peer, harness, pki, verdicts

pytestmark = pytest.mark.kernel


def exchange(door: apps.Address) -> None:
    with apps.connect(door) as client:
        client.sendall(b"hello")
        assert apps.read_exactly(client, 5) == b"hello"


def remember(node: harness.Node, *, uses: int = 0) -> None:
    """Let the node's agent have its answers to accepted connections and requests remembered."""
    node.agent.handlers[abi.Type.ACCEPTED] = lambda question: verdicts.Carry(
        node.choices[question.body.listener], remember=True, uses=uses
    )
    node.agent.handlers[abi.Type.REQUEST] = lambda question: verdicts.Carry(
        [verdicts.Choice(harness.parse(question.authority))], remember=True, uses=uses
    )


@contextlib.contextmanager
def echoing(pair: harness.Pair) -> Iterator[apps.Address]:
    with apps.App(apps.echo) as app:
        yield pair.to(app.address)


def test_a_remembered_answer_is_asked_for_once(pair: harness.Pair) -> None:
    remember(pair.near)
    remember(pair.far)
    with echoing(pair) as door:
        for _ in range(10):
            exchange(door)
    assert len(pair.near.agent.asked(abi.Type.ACCEPTED)) == 1
    assert len(pair.far.agent.asked(abi.Type.REQUEST)) == 1
    answers = {record.body.answer for record in pair.near.agent.await_ended(10)}
    assert len(answers) == 1
    assert answers <= pair.near.agent.answers.keys()


def test_an_answer_not_remembered_is_asked_for_each_time(pair: harness.Pair) -> None:
    with echoing(pair) as door:
        for _ in range(5):
            exchange(door)
    assert len(pair.near.agent.asked(abi.Type.ACCEPTED)) == 5
    assert len(pair.far.agent.asked(abi.Type.REQUEST)) == 5


def test_an_answer_for_one_door_is_not_repeated_at_another(pair: harness.Pair) -> None:
    remember(pair.near)
    with apps.App(apps.echo) as app:
        for door in (pair.to(app.address), pair.to(app.address)):
            exchange(door)
            exchange(door)
    assert len(pair.near.agent.asked(abi.Type.ACCEPTED)) == 2


def test_an_answer_for_one_authority_is_not_repeated_for_another(far: harness.Node, ca: pki.Authority) -> None:
    remember(far)
    with apps.App(apps.echo) as one, apps.App(apps.echo) as two, h2peer.dial(far.tunnel(), ca.svid()) as client:
        for app in (one, two, one, two):
            assert client.ask(f"{app.address[0]}:{app.address[1]}").status == 200
        one.await_connected(2)
        two.await_connected(2)
    assert len(far.agent.asked(abi.Type.REQUEST)) == 2


def test_an_answer_is_repeated_for_the_host_it_was_given_for(far: harness.Node, ca: pki.Authority) -> None:
    """The record names the Service that was asked for: the client's port changes, the host must be the same."""
    remember(far)
    with apps.App(apps.echo) as app, h2peer.dial(far.tunnel(), ca.svid()) as client:
        for port, host in enumerate(("", ";host=web", ";host=web2", "", ";host=web", ";Host=web2"), start=4000):
            forwarded = f'for="10.0.0.9:{port}"{host}'
            assert client.ask(f"{app.address[0]}:{app.address[1]}", [("forwarded", forwarded)]).status == 200
    assert len(far.agent.asked(abi.Type.REQUEST)) == 4, "one for each way to say it"


def test_an_answer_for_one_peer_is_not_repeated_for_another(far: harness.Node, ca: pki.Authority) -> None:
    """The same authority, asked for by another identity, is another question."""

    def judge(question: verdicts.Question) -> verdicts.Verdict:
        if question.body.peer in good:
            return verdicts.Carry([verdicts.Choice(harness.parse(question.authority))], remember=True)
        return verdicts.Refuse(status=401, remember=True)

    web = ca.svid("shop", "web")
    good: set[int] = set()
    far.agent.handlers[abi.Type.REQUEST] = judge
    tunnel = far.tunnel()
    with apps.App(apps.echo) as app:
        authority = f"{app.address[0]}:{app.address[1]}"
        with h2peer.dial(tunnel, web) as friend:
            far.agent.await_questions(abi.Type.TUNNEL)
            far.agent.wait(lambda: bool(far.agent.answers), "the peer's answer")
            good |= far.agent.answers.keys()
            assert friend.ask(authority).status == 200
            assert friend.ask(authority).status == 200
            with h2peer.dial(tunnel, ca.svid("other", "evil")) as stranger:
                assert stranger.ask(authority).status == 401
                assert stranger.ask(authority).status == 401
    assert len(far.agent.asked(abi.Type.TUNNEL)) == 2
    assert len(far.agent.asked(abi.Type.REQUEST)) == 2


def test_a_remembered_peer_is_asked_about_once_per_certificate(far: harness.Node, ca: pki.Authority) -> None:
    tunnel = far.tunnel()
    old, new = ca.svid("shop", "web"), ca.svid("shop", "web")
    with apps.App(apps.echo) as app:
        for leaf in (old, old, new, new):
            with h2peer.dial(tunnel, leaf) as client:
                assert client.ask(f"{app.address[0]}:{app.address[1]}").status == 200
    assert [question.cert for question in far.agent.asked(abi.Type.TUNNEL)] == [old.der, new.der]


def test_a_forgotten_answer_is_asked_for_again_and_its_connections_live_on(pair: harness.Pair) -> None:
    remember(pair.near)
    with echoing(pair) as door, apps.connect(door) as old:
        old.sendall(b"hello")
        apps.read_exactly(old, 5)
        (number,) = pair.near.agent.answers.keys() - {
            number for number, given in pair.near.agent.answers.items() if isinstance(given, verdicts.Accept)
        }
        pair.near.agent.refer(abi.Type.FORGET, number)
        exchange(door)
        assert len(pair.near.agent.asked(abi.Type.ACCEPTED)) == 2
        old.sendall(b"still")
        assert apps.read_exactly(old, 5) == b"still"


def test_forgetting_everything_asks_everything_again(pair: harness.Pair) -> None:
    remember(pair.near)
    remember(pair.far)
    with echoing(pair) as door:
        exchange(door)
        for node in (pair.near, pair.far):
            node.agent.refer(abi.Type.FORGET, 0)
        exchange(door)
    assert len(pair.near.agent.asked(abi.Type.ACCEPTED)) == 2
    assert len(pair.far.agent.asked(abi.Type.REQUEST)) == 2


def test_an_answer_is_repeated_no_more_often_than_it_says(pair: harness.Pair) -> None:
    remember(pair.near, uses=3)
    with echoing(pair) as door:
        for _ in range(12):
            exchange(door)
    # the asker's own use, then three repeats; or three uses in all: both ask every third or fourth time
    assert len(pair.near.agent.asked(abi.Type.ACCEPTED)) in (3, 4)


def test_cutting_an_answer_ends_its_connections_and_no_others(pair: harness.Pair) -> None:
    remember(pair.near)
    with echoing(pair) as door, echoing(pair) as other_door:
        with opened(door) as one, opened(door) as two, opened(other_door) as bystander:
            doomed = next(
                number
                for number, given in pair.near.agent.answers.items()
                if isinstance(given, verdicts.Carry) and given.choices == pair.near.choices[listener_of(pair, door)]
            )
            pair.near.agent.cut(doomed)
            assert apps.is_reset(one)
            assert apps.is_reset(two)
            records = pair.near.agent.await_ended(2)
            assert {(record.reason, record.body.answer) for record in records} == {(abi.Reason.CUT, doomed)}
            assert {record.moved for record in records} == {(5, 5)}
            bystander.sendall(b"still")
            assert apps.read_exactly(bystander, 5) == b"still"
        exchange(door)
    assert len(pair.near.agent.asked(abi.Type.ACCEPTED)) == 3, "a cut answer is forgotten"


def opened(door: apps.Address) -> apps.socket.socket:
    """A connection that has carried a message: its answer was given, and is remembered before the next one comes."""
    client = apps.connect(door)
    client.sendall(b"hello")
    assert apps.read_exactly(client, 5) == b"hello"
    return client


def test_cutting_on_the_servers_node_resets_both_apps(pair: harness.Pair) -> None:
    seen: list[bool] = []

    def watch(sock: apps.socket.socket) -> None:
        sock.sendall(apps.read_exactly(sock, 1))
        seen.append(apps.is_reset(sock))

    with apps.App(watch) as app, apps.connect(pair.to(app.address)) as client:
        client.sendall(b"x")
        apps.read_exactly(client, 1)
        (number,) = (n for n, given in pair.far.agent.answers.items() if isinstance(given, verdicts.Carry))
        pair.far.agent.cut(number, abi.Reason.CUT)
        assert apps.is_reset(client)
        app.join()
    assert seen == [True]
    assert pair.far.agent.await_ended()[0].reason is abi.Reason.CUT


def test_cutting_the_answer_that_accepted_a_peer_ends_its_tunnels(pair: harness.Pair) -> None:
    with echoing(pair) as door, apps.connect(door) as client:
        client.sendall(b"x")
        apps.read_exactly(client, 1)
        (number,) = (n for n, given in pair.far.agent.answers.items() if isinstance(given, verdicts.Accept))
        pair.far.agent.cut(number)
        assert apps.is_reset(client)
        exchange(door)
    assert len(pair.far.agent.asked(abi.Type.TUNNEL)) == 2


@pytest.mark.parametrize("role", [abi.Role.OUTBOUND, abi.Role.INBOUND_PLAIN], ids=lambda role: role.name)
def test_a_refused_connection_is_reset(far: harness.Node, role: abi.Role) -> None:
    far.agent.handlers[abi.Type.ACCEPTED] = lambda _: verdicts.Refuse(remember=True)
    _, door = far.listen(role)
    for _ in range(2):
        assert apps.is_refused(door)
    records = far.agent.await_ended(2)
    assert {record.reason for record in records} == {abi.Reason.REFUSED}
    assert {record.body.answer for record in records} == far.agent.answers.keys()
    assert len(far.agent.asked(abi.Type.ACCEPTED)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 503])
def test_a_refused_request_gets_the_status_of_the_answer(far: harness.Node, ca: pki.Authority, status: int) -> None:
    far.agent.handlers[abi.Type.REQUEST] = lambda _: verdicts.Refuse(status=status)
    with h2peer.dial(far.tunnel(), ca.svid()) as client:
        assert client.ask("10.0.0.9:80").status == status
    (record,) = far.agent.await_ended()
    assert record.reason is abi.Reason.REFUSED


def test_a_refused_peer_is_not_asked_for_its_requests(far: harness.Node, ca: pki.Authority) -> None:
    far.agent.handlers[abi.Type.TUNNEL] = lambda _: verdicts.Refuse()
    with contextlib.suppress(OSError), h2peer.dial(far.tunnel(), ca.svid()) as client:
        client.open("10.0.0.9:80")  # fails where the engine was quicker
        while client.pump():
            pass
    assert far.agent.await_questions(abi.Type.TUNNEL)
    assert far.agent.asked(abi.Type.REQUEST) == []


def test_what_is_remembered_is_bounded_and_the_oldest_is_asked_again(far: harness.Node, ca: pki.Authority) -> None:
    """An agent that has everything remembered, with labels near the size of a packet: 72 MiB, of 64."""
    label = bytes(60_000)
    far.agent.handlers[abi.Type.REQUEST] = lambda _: verdicts.Refuse(remember=True, label=label)
    authorities = [f"10.0.{number >> 8}.{number & 255}:80" for number in range(72 * (1 << 20) // len(label))]
    with h2peer.dial(far.tunnel(), ca.svid()) as client:
        for authority in authorities:
            assert client.ask(authority).status == 401
        asked = len(far.agent.asked(abi.Type.REQUEST))
        assert asked == len(authorities)
        for authority in authorities[-1000:]:
            assert client.ask(authority).status == 401
        assert len(far.agent.asked(abi.Type.REQUEST)) == asked, "the newest are still remembered"
        for authority in authorities[:10]:
            assert client.ask(authority).status == 401
        assert len(far.agent.asked(abi.Type.REQUEST)) == asked + 10


def test_workers_remember_for_themselves_and_forget_together(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with harness.node(tmp_path / "near", ca.svid(), threads=2) as near, apps.App(apps.echo) as app:
        remember(near)
        door = near.outbound(verdicts.Choice(app.address))
        for _ in range(40):
            exchange(door)
        assert 1 <= len(near.agent.asked(abi.Type.ACCEPTED)) <= 2


def listener_of(pair: harness.Pair, door: apps.Address) -> int:
    return next(q.body.listener for q in pair.near.agent.asked(abi.Type.ACCEPTED) if q.to == door)
