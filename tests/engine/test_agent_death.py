"""The agent dies, the engine does not notice more than it must; the next agent finds everything it needs."""

from __future__ import annotations

import fcntl
import socket
import threading

import pytest

from ambient.dataplane import abi

from . import agent, apps, h2peer, harness, pki, verdicts

pytestmark = pytest.mark.kernel


def carry(node: harness.Node, *, remember_it: bool = False, label: bytes = b"") -> None:
    node.agent.handlers[abi.Type.ACCEPTED] = lambda question: verdicts.Carry(
        node.choices[question.body.listener], remember=remember_it, label=label
    )


def die(node: harness.Node) -> None:
    node.agent.close()


def exchange(client: socket.socket, message: bytes = b"hello") -> None:
    client.sendall(message)
    assert apps.read_exactly(client, len(message)) == message


def test_open_connections_go_on_without_an_agent(pair: harness.Pair) -> None:
    total = 64 << 20

    def send(sock: socket.socket) -> None:
        exchange_back(sock)
        apps.send_pattern(sock, total)

    with apps.App(send) as app, apps.connect(pair.to(app.address)) as client:
        exchange(client)
        die(pair.near)
        die(pair.far)
        assert apps.expect_pattern(client) == total
        client.close()
        app.join()
    for node in (pair.near, pair.far):
        (record,) = node.next_agent().await_ended()
        assert record.moved == (5, 5 + total)


def test_a_connection_that_began_and_ended_between_two_agents_is_recorded(pair: harness.Pair) -> None:
    carry(pair.near, remember_it=True)
    pair.far.agent.handlers[abi.Type.REQUEST] = lambda question: verdicts.Carry(
        [verdicts.Choice(harness.parse(question.authority))], remember=True
    )
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        with apps.connect(door) as client:
            exchange(client)
        for node in (pair.near, pair.far):
            node.agent.await_ended()
            die(node)
        for size in range(1, 21):
            with apps.connect(door) as client:
                exchange(client, bytes(size))
    for node in (pair.near, pair.far):
        agent = node.next_agent()
        agent.await_ended(20)
        agent.inventory()  # nothing comes after its answer that was there before
        assert sorted(record.moved for record in agent.ended) == [(size, size) for size in range(1, 21)]
        assert {record.reason for record in agent.ended} == {abi.Reason.CLOSED}


def test_a_new_connection_waits_for_the_next_agent(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        die(pair.near)
        with apps.connect(door) as client:
            client.sendall(b"patience")
            pair.near.next_agent()
            assert apps.read_exactly(client, 8) == b"patience"
        (record,) = pair.near.agent.await_ended()
        assert record.moved == (8, 8)


def test_a_question_the_dead_agent_left_open_is_asked_again(far: harness.Node, ca: pki.Authority) -> None:
    far.agent.handlers[abi.Type.REQUEST] = lambda _: None
    with apps.App(apps.echo) as app, h2peer.dial(far.tunnel(), ca.svid()) as client:
        stream = client.open(f"{app.address[0]}:{app.address[1]}")
        client.send(stream, b"hello", end=True)
        far.agent.await_questions(abi.Type.REQUEST)
        die(far)
        far.next_agent()
        client.until(lambda: stream.ended)
        assert bytes(stream.data) == b"hello"
    assert len(far.agent.asked(abi.Type.REQUEST)) == 1


def test_an_agent_that_cannot_judge_yet_is_told_and_asked_nothing_but_its_inventory(pair: harness.Pair) -> None:
    """Until its settings come. What happens meanwhile waits in the engine, which bounds it."""
    carry(pair.near, remember_it=True)
    with apps.App(apps.echo) as app:
        known, unknown = pair.to(app.address), pair.to(app.address)
        with apps.connect(known) as client:
            exchange(client)
        pair.near.agent.await_ended()
        die(pair.near)
        waiting = apps.connect(unknown)
        undecided = agent.Agent(pair.near.engine.run_dir, 1)
        with apps.connect(known) as client:
            exchange(client, b"remembered")
        for _ in range(2):  # what comes between the two would be here by now
            rows = undecided.inventory(listeners=False)
        assert any(row.type is abi.Type.ROW_ANSWER for _, row in rows)
        assert (undecided.questions, undecided.ended) == ([], [])
        undecided.handlers[abi.Type.ACCEPTED] = lambda _: verdicts.Carry([pair.via_tunnel(app.address)])
        undecided.settings()
        (record,) = undecided.await_ended()
        assert record.moved == (10, 10)
        exchange(waiting)
        waiting.close()
        undecided.close()
        pair.near.next_agent()


def test_a_newer_agent_takes_the_place_of_an_older(far: harness.Node) -> None:
    older = far.agent
    newer = far.next_agent()
    older.wait(lambda: older.lost == {0}, "the older attachment is closed")
    older.close()
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        exchange(client)
    assert newer.await_ended()
    assert older.ended == []


def test_the_engine_says_it_is_the_same_to_every_agent(far: harness.Node) -> None:
    before = far.agent.hello[0]
    die(far)
    after = far.next_agent().hello[0]
    assert (after.start_at, after.pid, after.abi) == (before.start_at, before.pid, abi.ABI)
    assert after.pid == far.engine.pid
    assert (after.worker, after.workers) == (0, 1)


def test_the_next_agent_finds_the_answers_with_their_labels(pair: harness.Pair) -> None:
    label = b'{"rule":"AuthorizationPolicy shop/web rule 0"}' + bytes(range(256))
    carry(pair.near, remember_it=True, label=label)
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        with apps.connect(door) as client:
            exchange(client)
        pair.near.agent.await_ended()
        with apps.connect(door) as client:
            exchange(client, b"seven b")
            die(pair.near)
            rows = [row for _, row in pair.near.next_agent().inventory() if row.type is abi.Type.ROW_ANSWER]
            (row,) = (row for row in rows if row.body.verdict == abi.Verdict.CARRY)
            assert row.tail[: row.body.label_len] == label
            assert (row.body.opened, row.body.closed) == (2, 1)
            assert (row.body.sent, row.body.received) == (12, 12)
            assert row.body.flags & abi.AnswerFlag.REMEMBER


def test_an_answer_that_is_not_remembered_is_listed_while_its_connection_lives(pair: harness.Pair) -> None:
    carry(pair.near, label=b"once")

    def labels() -> list[bytes]:
        rows = [row for _, row in pair.near.agent.inventory() if row.type is abi.Type.ROW_ANSWER]
        return [row.tail[: row.body.label_len] for row in rows if row.body.verdict == abi.Verdict.CARRY]

    with apps.App(apps.echo) as app, apps.connect(pair.to(app.address)) as client:
        exchange(client)
        die(pair.near)
        pair.near.next_agent()
        assert labels() == [b"once"]
        client.close()
        pair.near.agent.await_ended()
        assert labels() == []


def test_the_next_agent_finds_the_open_connections(pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        with apps.connect(door) as client:
            exchange(client)
            for node in (pair.near, pair.far):
                die(node)
                rows = [row for _, row in node.next_agent().inventory() if row.type is abi.Type.ROW_CONN]
                (row,) = rows
                record = verdicts.Ended(0, row.body)
                assert (record.reason, record.moved) == (abi.Reason.OPEN, (5, 5))
                assert record.body.answer != 0
                assert record.body.setup_ns > 0
            number = row.body.id
        (record,) = pair.far.agent.await_ended()
        assert record.body.id == number


def test_the_next_agent_gets_the_listening_sockets_back(far: harness.Node) -> None:
    door = far.outbound()
    tunnel = far.tunnel()
    die(far)
    fresh = harness.agent.Agent(far.engine.run_dir, 1)
    try:
        rows = [row for _, row in fresh.inventory() if row.type is abi.Type.ROW_LISTENER]
        found = {}
        for row in rows:
            (fd,) = row.fds
            with socket.socket(fileno=fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)) as sock:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                found[sock.getsockname()] = (row.body.role, row.body.pod, row.body.context)
    finally:
        fresh.close()
    assert found == {
        door: (abi.Role.OUTBOUND, harness.POD, 0),
        tunnel: (abi.Role.INBOUND_TUNNEL, harness.POD, harness.CONTEXT),
    }
    far.next_agent()


def test_the_same_listener_told_twice_is_one_listener(far: harness.Node) -> None:
    with apps.App(apps.echo) as app:
        door = far.outbound(verdicts.Choice(app.address))
        before = far.engine.fds()
        for _ in range(3):
            die(far)
            far.next_agent()
        with apps.connect(door) as client:
            exchange(client)
        far.agent.await_ended()
        rows = [row for _, row in far.agent.inventory() if row.type is abi.Type.ROW_LISTENER]
        assert len(rows) == 1
        assert far.engine.fds() <= before + 4 * far.stash


def test_an_agent_killed_under_load_costs_no_connection(pair: harness.Pair) -> None:
    """Clients come and go without a pause while one agent after another dies on both nodes."""
    done = threading.Event()
    served: list[int] = []
    carry(pair.near, remember_it=True)

    def hammer() -> None:
        count = 0
        while not done.is_set():
            with apps.connect(door) as client:
                exchange(client)
            count += 1
        served.append(count)

    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        threads = [threading.Thread(target=hammer) for _ in range(4)]
        for thread in threads:
            thread.start()
        records = 0
        for _ in range(5):
            for node in (pair.near, pair.far):
                node.agent.await_ended(5)
                die(node)
                records += len(node.agent.ended) if node is pair.near else 0
                node.next_agent()
        done.set()
        for thread in threads:
            thread.join(apps.PATIENCE)
        assert len(served) == 4, "a client failed"
        pair.near.agent.wait(lambda: records + len(pair.near.agent.ended) >= sum(served), "every record")
    assert records + len(pair.near.agent.ended) == sum(served)


def exchange_back(sock: socket.socket) -> None:
    sock.sendall(apps.read_exactly(sock, 5))


def test_descriptors_of_a_dead_agent_are_not_kept(far: harness.Node) -> None:
    before = far.engine.fds()
    die(far)
    for _ in range(10):
        harness.agent.Agent(far.engine.run_dir, 1).close()
    harness.process.eventually(lambda: far.engine.fds() < before, "the sockets of dead agents are closed")
    far.next_agent()


def test_a_busy_pods_sockets_outlast_its_agent(far: harness.Node) -> None:
    """Where many connections come, more sockets are kept than the agent said: they come while it is away, too."""
    carry(far, remember_it=True)
    with apps.App(apps.echo) as app:
        door = far.outbound(verdicts.Choice(app.address))
        for _ in range(2 * far.stash):  # in less than a second
            with apps.connect(door) as client:
                exchange(client)
        lows = far.agent.stash_low
        far.agent.wait(lambda: any(low.have + low.want > 4 * far.stash for low in lows), "it wants to keep more")
        far.agent.inventory()
        die(far)
        for _ in range(4 * far.stash):
            with apps.connect(door) as client:
                exchange(client)
    far.next_agent()
    far.agent.await_ended(4 * far.stash)
