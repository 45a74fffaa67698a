"""Many connections at once, and slow readers: bounded memory, and nobody waits for a neighbour."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import threading

import pytest

from ambient.dataplane import abi

from . import apps, harness, process, verdicts

pytestmark = pytest.mark.kernel

CROWD = 1000
SLOW = 24
MIB = 1 << 20
PER_CONNECTION = 512 << 10  # what the engine may buffer for one connection
PER_IDLE_CONNECTION = 32 << 10
STALLED = 0.3  # seconds without room for a byte: the way is full


@pytest.fixture
def shared_pair(tmp_path: pathlib.Path) -> harness.Pair:
    """One worker each, and no elephants: everything shares one tunnel."""
    with harness.pair(tmp_path, elephant_bytes=1 << 30) as nodes:
        nodes.far.agent.handlers[abi.Type.TUNNEL] = lambda _: verdicts.Accept(remember=False)
        yield nodes


def test_a_thousand_connections_live_side_by_side(shared_pair: harness.Pair) -> None:
    with apps.App(apps.echo) as app, contextlib.ExitStack() as stack:
        door = shared_pair.to(app.address)
        with apps.connect(door) as first:
            echo_over(first, b"warm")
        before = {node: node.engine.rss() for node in (shared_pair.near, shared_pair.far)}
        clients = [stack.enter_context(apps.connect(door)) for _ in range(CROWD)]
        for turn in range(2):
            for number, client in enumerate(clients):
                client.sendall(b"%d:%06d" % (turn, number))
            for number, client in enumerate(clients):
                assert apps.read_exactly(client, 8) == b"%d:%06d" % (turn, number)
        if not process.sanitized():
            for node, rss in before.items():
                assert (node.engine.rss() - rss) / CROWD <= PER_IDLE_CONNECTION
        stack.close()
        for node in (shared_pair.near, shared_pair.far):
            records = node.agent.await_ended(CROWD + 1)
            assert {record.reason for record in records} == {abi.Reason.CLOSED}
            assert {record.moved for record in records} == {(16, 16), (4, 4)}
        assert len(shared_pair.far.agent.asked(abi.Type.TUNNEL)) == 1


@pytest.mark.parametrize("slow", ["server", "client"])
def test_slow_readers_bound_our_memory_and_stall_no_neighbour(shared_pair: harness.Pair, slow: str) -> None:
    pair = shared_pair
    go_on = threading.Event()
    totals: list[int] = []
    received: list[int] = []

    def read_late(sock: socket.socket) -> None:
        assert go_on.wait(apps.PATIENCE)
        received.append(apps.expect_pattern(sock))

    def flood(sock: socket.socket) -> None:
        totals.append(push_until_full(sock))
        assert go_on.wait(apps.PATIENCE)
        sock.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(sock) == b""

    app_side, client_side = (read_late, flood) if slow == "server" else (flood, read_late)
    with apps.App(app_side) as app, apps.App(apps.echo) as neighbour, contextlib.ExitStack() as stack:
        quick = stack.enter_context(apps.connect(pair.to(neighbour.address)))
        echo_over(quick, bytes(60_000))
        before = {node: node.engine.rss() for node in (pair.near, pair.far)}
        door = pair.to(app.address)
        clients = [stack.enter_context(apps.connect(door)) for _ in range(SLOW)]
        threads = [threading.Thread(target=client_side, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        process.eventually(lambda: len(totals) == SLOW or bool(app.errors), "every way is full", apps.PATIENCE)
        if not process.sanitized():
            for node, rss in before.items():
                assert (node.engine.rss() - rss) / SLOW <= PER_CONNECTION
        for _ in range(20):
            echo_over(quick, bytes(60_000))
        go_on.set()
        for thread in threads:
            thread.join(apps.PATIENCE)
        for client in clients:
            client.close()
        app.join()
    assert sorted(received) == sorted(totals)
    assert len(pair.far.agent.asked(abi.Type.TUNNEL)) == 1


def test_a_reader_that_wakes_up_gets_everything(pair: harness.Pair) -> None:
    """The window must open again after it was closed for long, more than once."""
    wake = threading.Semaphore(0)
    awake = 4
    received: list[int] = []

    def stutter(sock: socket.socket) -> None:
        for _ in range(awake):
            assert wake.acquire(timeout=apps.PATIENCE)
            # a whole period of the pattern each time, so that each time starts at its beginning
            apps.expect_pattern(sock, apps.PERIOD)
        received.append(apps.expect_pattern(sock))

    with apps.App(stutter) as app, apps.connect(pair.to(app.address)) as client:
        sent = 0
        for _ in range(awake):
            sent = push_until_full(client, sent)
            wake.release()
        client.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(client) == b""
        app.join()
    assert received == [sent - awake * apps.PERIOD]


def test_a_full_way_costs_no_cpu(pair: harness.Pair) -> None:
    """A level-triggered wait for a socket nobody reads would spin."""
    go_on = threading.Event()

    def never_read(sock: socket.socket) -> None:
        go_on.wait(apps.PATIENCE)
        apps.read_to_end(sock)

    with apps.App(never_read) as app, apps.connect(pair.to(app.address)) as client:
        push_until_full(client)
        before = [node.engine.cpu_seconds() for node in (pair.near, pair.far)]
        threading.Event().wait(0.5)  # the idleness itself is what is measured
        after = [node.engine.cpu_seconds() for node in (pair.near, pair.far)]
        go_on.set()
        client.close()
    assert all(late - early < 0.1 for early, late in zip(before, after, strict=True))


def echo_over(client: socket.socket, message: bytes) -> None:
    client.sendall(message)
    assert apps.read_exactly(client, len(message)) == message


def push_until_full(sock: socket.socket, sent: int = 0) -> int:
    """Send the pattern from `sent` on until the other end takes no more; returns how far that was."""
    sock.settimeout(STALLED)
    with contextlib.suppress(TimeoutError):
        while True:
            sent += sock.send(apps.pattern(sent, 65536))
    sock.settimeout(apps.PATIENCE)
    return sent
