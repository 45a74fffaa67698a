"""One record for every connection past the engine, with its exact bytes and how it ended; none lost."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from ambient.capture import Capture, Role, abi, direct
from ambient.capture.abi import Kind
from ambient.capture.direct import Outcome

from .. import apps, pods
from .conftest import PORT, Pair
from .talk import ABORT, CLOSE, HALF, WAIT, answer, answer_often, talk, talk_often

pytestmark = pytest.mark.kernel

BULK = 5_000_000


@pytest.mark.parametrize(
    ("send", "receive", "client_ends", "server_ends", "outcome"),
    [
        pytest.param(5, 3, CLOSE, WAIT, Outcome.CLOSED, id="client first"),
        pytest.param(5, 3, WAIT, CLOSE, Outcome.CLOSED, id="server first"),
        pytest.param(5, 3, HALF, WAIT, Outcome.CLOSED, id="client half, then server"),
        pytest.param(5, 3, WAIT, HALF, Outcome.CLOSED, id="server half, then client"),
        pytest.param(0, 0, CLOSE, WAIT, Outcome.CLOSED, id="nothing said"),
        pytest.param(0, 0, WAIT, CLOSE, Outcome.CLOSED, id="nothing said, server first"),
        pytest.param(BULK, BULK, HALF, WAIT, Outcome.CLOSED, id="bulk"),
        pytest.param(5, 3, ABORT, WAIT, Outcome.RESET_CLIENT, id="client resets"),
        pytest.param(5, 3, WAIT, ABORT, Outcome.RESET_SERVER, id="server resets"),
    ],
)
def test_bytes_and_outcome_are_exact(
    pair: Pair, send: int, receive: int, client_ends: str, server_ends: str, outcome: Outcome
) -> None:
    pair.allow(pair.vip)
    server = pair.server.start(answer, str(pair.at[0]), PORT, send, receive, server_ends)
    assert server.receive() == "listening"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    client = pair.client.start(talk, *pair.spelled(pair.vip), send, receive, client_ends)
    assert client.receive() == "talked"
    (flow,) = pair.capture.direct.flows() or [None]
    if flow:  # the server may have ended it by now
        assert (flow.admitted, flow.dialled, flow.destination) == (True, pair.vip, pair.at)
    client.tell(None)
    server.tell("go on")
    client.receive()
    (record,) = pair.ended()
    assert (record.bytes_out, record.bytes_in) == (send, receive)
    assert record.outcome is outcome
    assert record.error == (errno.ECONNRESET if outcome is Outcome.RESET_SERVER else 0)
    assert record.flow.established_ns
    assert before < record.flow.started_ns < record.flow.established_ns < record.ended_ns
    assert record.ended_ns < time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def test_where_nobody_listens_it_failed(pair: Pair) -> None:
    pair.allow(pair.vip)
    assert pair.dial(pair.vip) == apps.REFUSED
    (record,) = pair.ended()
    assert (record.outcome, record.error) == (Outcome.FAILED, errno.ECONNREFUSED)
    assert record.flow.admitted
    assert record.flow.established_ns is None


def test_one_socket_that_connects_twice_has_two_records(pair4: Pair) -> None:
    """The first is given up; the second dials what was the first one's endpoint, and is told as that."""
    pair4.allow(pair4.vip)
    pair4.allow(pair4.at)
    server = pair4.serve()
    with pods.unforwarded(pair4.client.node):
        app = pair4.client.start(apps.dial_twice, pair4.spelled(pair4.vip), pair4.spelled(pair4.at))
        (first,) = pair4.ended()
    assert app.receive() == b"app"
    (second,) = pair4.ended()
    assert (first.outcome, first.flow.dialled) == (Outcome.FAILED, pair4.vip)
    assert (second.outcome, second.flow.dialled) == (Outcome.CLOSED, pair4.at)
    assert second.flow.source[1] > 0
    server.finish()


def test_a_socket_that_goes_elsewhere_after_a_failed_connect_is_captured(pair4: Pair) -> None:
    pair4.allow(pair4.vip)
    elsewhere = "10.99.1.1", 80
    with pods.unforwarded(pair4.client.node):
        app = pair4.client.start(apps.dial_twice, pair4.spelled(pair4.vip), elsewhere)
        taken = apps.take(pair4.listeners["client"][Role.OUTBOUND])
    assert taken[1] == elsewhere
    assert app.receive() == b"engine"
    assert pair4.ended()[0].flow.dialled == pair4.vip


def test_destroyed_at_once_at_both_ends_and_the_listener_lives(pair: Pair) -> None:
    pair.allow(pair.vip)
    server = pair.server.start(answer, str(pair.at[0]), PORT, 5, 3, WAIT)
    assert server.receive() == "listening"
    client = pair.client.start(talk, *pair.spelled(pair.vip), 5, 3, WAIT)
    assert client.receive() == "talked"
    flows = pair.capture.direct.flows()
    client.tell(None)
    assert pair.capture.direct.destroy(flows) == 1
    assert client.receive() == "ConnectionAbortedError"
    assert server.receive() in ("ConnectionResetError", "ConnectionAbortedError")
    (record,) = pair.ended()
    assert (record.outcome, record.bytes_out, record.bytes_in) == (Outcome.DESTROYED, 5, 3)
    assert pair.capture.direct.destroy(flows) == 0
    again = pair.client.start(talk, *pair.spelled(pair.vip), 5, 3, CLOSE)
    assert again.receive() == "talked"


def test_one_that_is_still_being_opened_is_destroyed_too(pair: Pair) -> None:
    pair.allow(pair.vip)
    with pods.unforwarded(pair.client.node):
        app = pair.client.start(apps.dial, *pair.spelled(pair.vip))
        flows = pods.eventually(pair.capture.direct.flows)
        assert pair.capture.direct.destroy(flows) == 1
        assert app.receive() == "ConnectionAbortedError"
    (record,) = pair.ended()
    assert (record.outcome, record.flow.established_ns) == (Outcome.DESTROYED, None)


def test_a_record_outlives_the_process_and_its_cgroup(pair4: Pair) -> None:
    """As when a pod is deleted: its last packets are still to be acknowledged."""
    pair4.allow(pair4.vip)
    server = pair4.server.start(answer, str(pair4.at[0]), PORT, 5, 3, WAIT)
    assert server.receive() == "listening"
    client = pair4.client.start(talk, *pair4.spelled(pair4.vip), 5, 3, WAIT)
    assert client.receive() == "talked"
    with pods.unforwarded(pair4.client.node):
        client.finish()
        pair4.client.cgroup.rmdir()
        assert len(pair4.capture.direct.flows()) == 1
    pair4.client.cgroup.mkdir()
    (record,) = pair4.ended()
    assert (record.bytes_out, record.bytes_in, record.outcome) == (5, 3, Outcome.CLOSED)


def test_what_comes_late_does_not_change_what_was_let_in(pair: Pair) -> None:
    """The verdict is gone, the server's end too, and the client speaks once more."""
    pair.allow(pair.vip)
    server = pair.serve()
    app = pair.client.start(apps.move, *pair.spelled(pair.vip))
    assert app.receive() == "ready"
    pair.delete(pair.vip)
    server.finish()
    app.tell(("sendall", b"too late"))
    assert app.receive() in ("", "BrokenPipeError", "ConnectionResetError")
    (record,) = pair.ended()
    assert (record.flow.admitted, record.outcome) == (True, Outcome.RESET_SERVER)
    app.finish()


def test_thousands_each_way_are_recorded_exactly(pair: Pair) -> None:
    count = 3000
    back = Pair(pair.capture, pair.server, pair.client, pair.family)
    servers, clients, expected = [], [], []
    for each in (pair, back):
        each.allow(each.vip)
        servers.append(each.server.start(answer_often, str(each.at[0]), PORT))
        assert servers[-1].receive() == "listening"
    for each in (pair, back):
        clients.append(each.client.start(talk_often, *each.spelled(each.vip), count))
        sent = [number % 2000 + 1 for number in range(count)]
        expected += [(each.client.netns.cookie, number, 2 * number) for number in sent]
    found: list[direct.Ended] = []
    deadline = time.monotonic() + 120
    while len(found) < 2 * count and time.monotonic() < deadline:
        pair.capture.direct.read(found.append)
    assert [client.receive() for client in clients] == [sum(row[2] for row in expected) // 2] * 2
    for server in servers:
        server.tell("stop")
        assert server.receive() == sum(row[1] for row in expected) // 2
    assert sorted((row.flow.client, row.bytes_out, row.bytes_in) for row in found) == sorted(expected)
    assert {row.outcome for row in found} == {Outcome.CLOSED}
    assert pair.capture.direct.read(found.append) == 0
    assert pair.capture.direct.flows() == []
    assert pair.counted("flow_untold", "connect_captured", "connect_direct") == [0, 0, 2 * count]


def test_what_a_dead_agent_left_the_next_one_reads(pair4: Pair, node: pods.Node, bpffs: Path) -> None:
    number = pair4.allow(pair4.vip)
    server = pair4.server.start(answer, str(pair4.at[0]), PORT, 5, 3, WAIT)
    assert server.receive() == "listening"
    client = pair4.client.start(talk, *pair4.spelled(pair4.vip), 5, 3, CLOSE)
    assert client.receive() == "talked"
    pair4.capture.close()
    second = pair4.client.start(talk, *pair4.spelled(pair4.vip), 5, 3, CLOSE)  # nobody is there, and it goes on
    client.tell(None)
    client.receive()
    assert second.receive() == "talked"
    pair4.capture = Capture.open(node.cgroup, bpffs)
    (record,) = pair4.ended()
    assert record.flow.number == number
    assert [flow.number for flow in pair4.capture.direct.flows()] == [number]
    ((key, verdict),) = pair4.capture.direct.verdicts().items()
    assert key == (pair4.client.netns.cookie, pair4.vip)
    assert verdict == direct.Verdict(number, Kind.DIRECT, (pair4.endpoint(),))
    assert pair4.capture.direct.destroy(pair4.capture.direct.flows()) == 1  # pods that this one has not enrolled
    pair4.capture.close()


def test_what_take_raises_comes_out_and_the_rest_stays(pair4: Pair) -> None:
    pair4.rule(Kind.REFUSE, pair4.vip)
    for _ in range(3):
        assert pair4.dial(pair4.vip) == apps.FORBIDDEN

    def refuse(record: direct.Ended) -> None:
        raise KeyError(record.flow.dialled)

    with pytest.raises(KeyError):
        pair4.capture.direct.read(refuse)
    found: list[direct.Ended] = []
    assert pair4.capture.direct.read(found.append, limit=1) == 1
    assert len(pair4.ended(1)) == 1


def _knock(channel: object, to: str, port: int, count: int) -> int:
    """So many refused connects; how many."""
    del channel
    refused = 0
    for _ in range(count):
        with apps.socket.socket() as sock:
            refused += sock.connect_ex((to, port)) == errno.EPERM
    return refused


def test_refusals_that_nobody_reads_are_the_engines_and_leave_room_for_direct_connections(pair4: Pair) -> None:
    room = abi.RING_BACKLOG // 2 // 136 + 1  # of 128 bytes and the kernel's header: one may go over the limit
    pair4.rule(Kind.REFUSE, pair4.vip)
    assert pair4.client.run(_knock, *pair4.spelled(pair4.vip), room + 100) == room
    assert pair4.counted("connect_denied", "connect_no_room") == [room, 100]
    pair4.allow(pair4.at)
    server = pair4.serve()
    assert pair4.dial(pair4.at)["said"] == b"app"
    server.finish()
    found: list[direct.Ended] = []
    while pair4.capture.direct.read(found.append):
        pass
    assert len(found) == room + 1
    assert found[-1].outcome is Outcome.CLOSED


def test_when_the_ring_is_full_the_engine_takes_over_and_nothing_is_lost(pair4: Pair) -> None:
    pair4.allow(pair4.vip)
    room = abi.RING_BACKLOG // 136 + 1
    server = pair4.server.start(answer_often, str(pair4.at[0]), PORT)
    assert server.receive() == "listening"
    assert pair4.client.run(talk_often, *pair4.spelled(pair4.vip), room)
    app = pair4.client.start(apps.dial, *pair4.spelled(pair4.vip))
    assert apps.take(pair4.listeners["client"][Role.OUTBOUND])[1] == pair4.spelled(pair4.vip)
    assert app.receive()["said"] == b"engine"
    found: list[direct.Ended] = []
    while pair4.capture.direct.read(found.append):
        pass
    assert len(found) == room
    assert pair4.counted("connect_no_room", "connect_direct", "flow_untold") == [1, room, 0]
    assert pair4.client.run(talk_often, *pair4.spelled(pair4.vip), 1)
    assert len(pair4.ended()) == 1
