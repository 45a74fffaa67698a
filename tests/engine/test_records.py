"""Exactly one record for every accepted connection, whatever became of it; and pods that leave."""

from __future__ import annotations

import collections
import pathlib
import random
import socket
import threading

import pytest

from ambient.dataplane import abi

from . import apps, harness, verdicts

pytestmark = pytest.mark.kernel

MANY = 400


SERVED = ("carried", "clear")


def test_every_accepted_connection_has_exactly_one_record(tmp_path: pathlib.Path) -> None:
    """A mix of all fates, several at a time, over two workers."""
    with (
        harness.pair(tmp_path, threads=2, elephant_bytes=1 << 20) as pair,
        apps.App(apps.echo) as app,
        apps.App(apps.reset) as resetting,
        apps.dead_port() as dead,
    ):
        doors = {
            "carried": pair.to(app.address),
            "clear": pair.near.outbound(verdicts.Choice(app.address)),
            "reset": pair.to(resetting.address),
            "dead": pair.to(dead),
            "refused": pair.near.outbound(),
        }
        near, far = pair.near.agent, pair.far.agent
        plan = near.handlers[abi.Type.ACCEPTED]
        near.handlers[abi.Type.ACCEPTED] = lambda question: (
            plan(question) if pair.near.choices[question.body.listener] else verdicts.Refuse()
        )
        jobs = random.Random(4).choices(list(doors), k=MANY)
        run([(kind, doors[kind]) for kind in jobs])
        near.await_ended(MANY)
        near.inventory()
        assert len(near.ended) == MANY
        assert len({(record.worker, record.body.id) for record in near.ended}) == MANY
        counts = collections.Counter(jobs)
        reasons = collections.Counter(record.reason for record in near.ended)
        assert reasons[abi.Reason.REFUSED] == counts["refused"]
        # an app that resets at once may do so before our connect() is seen to have succeeded
        assert counts["dead"] <= reasons[abi.Reason.PEER_REFUSED] <= counts["dead"] + counts["reset"]
        asked = len(far.asked(abi.Type.REQUEST))
        assert asked == counts["carried"] + counts["reset"] + counts["dead"]
        far.await_ended(asked)
        far.inventory()
        assert len(far.ended) == asked


def run(jobs: list[tuple[str, apps.Address]]) -> None:
    """A client for each job, eight at a time. Every third that is served resets."""
    errors: list[BaseException] = []

    def client(kind: str, door: apps.Address, number: int) -> None:
        try:
            with apps.connect(door) as sock:
                sock.sendall(b"hello")
                apps.read_exactly(sock, 5) if kind in SERVED else apps.read_to_end(sock)
                if number % 3 == 0:
                    apps.reset(sock)
        except ConnectionError:
            assert kind not in SERVED

    def work(start: int) -> None:
        try:
            for number in range(start, len(jobs), 8):
                client(*jobs[number], number)
        except BaseException as error:  # noqa: BLE001 raised below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_client_that_gives_up_before_the_answer_is_recorded(far: harness.Node) -> None:
    far.agent.handlers[abi.Type.ACCEPTED] = lambda _: None
    door = far.outbound()
    apps.reset(apps.connect(door))
    (record,) = far.agent.await_ended()
    assert (record.reason, record.body.answer) == (abi.Reason.RESET_CLIENT, 0)


def test_an_engine_that_is_told_nothing_more_is_idle(far: harness.Node) -> None:
    """A listener that is unlistened refuses new ones and keeps the old."""
    with apps.App(apps.echo) as app:
        number, door = far.listen(abi.Role.OUTBOUND, verdicts.Choice(app.address))
        with apps.connect(door) as client:
            exchange(client)
            far.agent.refer(abi.Type.UNLISTEN, number)
            rows = [row for _, row in far.agent.inventory() if row.type is abi.Type.ROW_LISTENER]
            assert rows == []
            exchange(client)


def test_a_pod_that_leaves_is_idle_when_its_last_connection_ended(far: harness.Node) -> None:
    with apps.App(apps.echo) as app:
        door = far.outbound(verdicts.Choice(app.address))
        with apps.connect(door) as one, apps.connect(door) as two:
            exchange(one)
            exchange(two)
            far.agent.refer(abi.Type.LEAVE, harness.POD)
            rows = [row for _, row in far.agent.inventory() if row.type is abi.Type.ROW_LISTENER]
            assert rows == []
            exchange(one)
            one.close()
            far.agent.await_ended(1)
            exchange(two)
            assert far.agent.idle == []
        far.agent.wait(lambda: far.agent.idle == [harness.POD], "IDLE")


def test_a_pod_that_leaves_without_connections_is_idle_at_once(far: harness.Node) -> None:
    far.outbound()
    far.agent.refer(abi.Type.LEAVE, harness.POD)
    far.agent.wait(lambda: far.agent.idle == [harness.POD], "IDLE")


def test_a_pod_the_engine_does_not_know_is_idle_at_once(far: harness.Node) -> None:
    """Another engine may have served it: whoever waits for IDLE would wait for ever."""
    far.agent.refer(abi.Type.LEAVE, 9)
    far.agent.wait(lambda: far.agent.idle == [9], "IDLE")


def exchange(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert apps.read_exactly(client, 5) == b"hello"
