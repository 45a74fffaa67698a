"""What one app sends is what the other gets: byte-exact, with its half-closes and resets, at every size."""

from __future__ import annotations

import pathlib
import socket
import threading
import time

import pytest

from ambient.dataplane import abi

from . import apps, harness, process, verdicts

pytestmark = pytest.mark.kernel

GIB = 1 << 30
GIB_SECONDS = 20.0


def sink(total: int) -> apps.Handler:
    """An app that checks what it gets, then says so."""

    def handle(sock: socket.socket) -> None:
        apps.expect_pattern(sock, total)
        sock.sendall(b"done")
        assert sock.recv(1) == b""

    return handle


def source(total: int) -> apps.Handler:
    def handle(sock: socket.socket) -> None:
        apps.read_exactly(sock, 2)
        apps.send_pattern(sock, total)

    return handle


@pytest.mark.parametrize("total", [1, 65535, 65536, 65537, 1 << 20], ids=["1 B", "64K-1", "64K", "64K+1", "1 MiB"])
def test_what_is_sent_arrives_byte_exact(pair: harness.Pair, total: int) -> None:
    with apps.App(sink(total)) as app, apps.connect(pair.to(app.address)) as client:
        apps.send_pattern(client, total)
        assert apps.read_exactly(client, 4) == b"done"
        client.close()
        app.join()
    for node in (pair.near, pair.far):
        (record,) = node.agent.await_ended()
        assert record.moved == (total, 4)


@pytest.mark.parametrize("total", [1, 1 << 20], ids=["1 B", "1 MiB"])
def test_what_is_received_arrives_byte_exact(pair: harness.Pair, total: int) -> None:
    with apps.App(source(total)) as app, apps.connect(pair.to(app.address)) as client:
        client.sendall(b"go")
        assert apps.expect_pattern(client) == total
    for node in (pair.near, pair.far):
        (record,) = node.agent.await_ended()
        assert record.moved == (2, total)


def test_a_gibibyte_arrives_byte_exact(pair: harness.Pair) -> None:
    started = time.monotonic()
    with apps.App(source(GIB)) as app, apps.connect(pair.to(app.address)) as client:
        client.sendall(b"go")
        assert apps.expect_pattern(client) == GIB
        app.join()
    (record,) = pair.near.agent.await_ended()
    assert record.moved == (2, GIB)
    if not process.sanitized():
        assert time.monotonic() - started < GIB_SECONDS


def test_both_directions_at_once_arrive_byte_exact(pair: harness.Pair) -> None:
    total = 32 << 20

    def both(sock: socket.socket) -> None:
        sender = threading.Thread(target=apps.send_pattern, args=(sock, total))
        sender.start()
        apps.expect_pattern(sock, total)
        sender.join()

    with apps.App(both) as app, apps.connect(pair.to(app.address)) as client:
        both(client)
        client.close()
        app.join()
    (record,) = pair.near.agent.await_ended()
    assert record.moved == (total, total)


def test_the_client_may_finish_sending_and_still_receive(pair: harness.Pair) -> None:
    def answer_after_eof(sock: socket.socket) -> None:
        assert apps.read_to_end(sock) == b"question"
        sock.sendall(b"answer")

    with apps.App(answer_after_eof) as app, apps.connect(pair.to(app.address)) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(client) == b"answer"
        app.join()


def test_the_server_may_finish_sending_and_still_receive(pair: harness.Pair) -> None:
    def finish_first(sock: socket.socket) -> None:
        sock.sendall(b"all I have")
        sock.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(sock) == b"more"

    with apps.App(finish_first) as app, apps.connect(pair.to(app.address)) as client:
        assert apps.read_to_end(client) == b"all I have"
        client.sendall(b"mo")
        client.sendall(b"re")
        client.shutdown(socket.SHUT_WR)
        app.join()
    (record,) = pair.near.agent.await_ended()
    assert (record.reason, record.moved) == (abi.Reason.CLOSED, (4, 10))


def test_a_half_close_without_any_byte_is_passed_on(pair: harness.Pair) -> None:
    def finish(sock: socket.socket) -> None:
        assert apps.read_to_end(sock) == b""

    with apps.App(finish) as app, apps.connect(pair.to(app.address)) as client:
        client.shutdown(socket.SHUT_WR)
        assert apps.read_to_end(client) == b""
        app.join()


@pytest.mark.parametrize("path", ["tunnel", "clear"])
def test_a_reset_by_the_client_reaches_the_app_as_a_reset(pair: harness.Pair, path: str) -> None:
    seen: list[bool] = []

    def watch(sock: socket.socket) -> None:
        sock.sendall(apps.read_exactly(sock, 1))
        seen.append(apps.is_reset(sock))

    with apps.App(watch) as app:
        client = apps.connect(door_to(pair, app, path))
        client.sendall(b"x")
        apps.read_exactly(client, 1)
        apps.reset(client)
        app.join()
    assert seen == [True]
    assert pair.near.agent.await_ended()[0].reason is abi.Reason.RESET_CLIENT
    if path == "tunnel":
        assert pair.far.agent.await_ended()[0].reason is abi.Reason.RESET_CLIENT


@pytest.mark.parametrize("path", ["tunnel", "clear"])
def test_a_reset_by_the_app_reaches_the_client_as_a_reset(pair: harness.Pair, path: str) -> None:
    def kill(sock: socket.socket) -> None:
        apps.read_exactly(sock, 1)
        apps.reset(sock)

    with apps.App(kill) as app, apps.connect(door_to(pair, app, path)) as client:
        client.sendall(b"x")
        assert apps.is_reset(client)
    assert pair.near.agent.await_ended()[0].reason is abi.Reason.RESET_SERVER
    if path == "tunnel":
        assert pair.far.agent.await_ended()[0].reason is abi.Reason.RESET_SERVER


def test_a_reset_after_a_half_close_is_still_a_reset(pair: harness.Pair) -> None:
    def kill_after_eof(sock: socket.socket) -> None:
        apps.read_to_end(sock)
        apps.reset(sock)

    with apps.App(kill_after_eof) as app, apps.connect(pair.to(app.address)) as client:
        client.shutdown(socket.SHUT_WR)
        assert apps.is_reset(client)


def test_what_was_sent_before_a_close_with_unread_bytes_is_not_lost(pair: harness.Pair) -> None:
    total = 4 << 20
    with apps.App(source(total)) as app, apps.connect(pair.to(app.address)) as client:
        client.sendall(b"go")
        app.join()  # the app has sent and closed; most of it still is on its way
        assert apps.expect_pattern(client) == total


def test_a_server_may_speak_first(pair: harness.Pair) -> None:
    with apps.App(apps.greet) as app, apps.connect(pair.to(app.address)) as client:
        assert apps.read_exactly(client, 11) == b"220 ready\r\n"
        client.sendall(b"QUIT")
        assert apps.read_exactly(client, 4) == b"QUIT"


@pytest.mark.parametrize("flags", [0, abi.SettingsFlag.NO_EARLY_DATA], ids=["early data", "no early data"])
def test_what_a_client_says_at_once_arrives(tmp_path: pathlib.Path, flags: int) -> None:
    with harness.pair(tmp_path, flags=flags) as pair, apps.App(sink(200_000)) as app:
        with apps.connect(pair.to(app.address)) as client:
            apps.send_pattern(client, 200_000)
            assert apps.read_exactly(client, 4) == b"done"
            client.close()
        app.join()


def door_to(pair: harness.Pair, app: apps.App, path: str) -> apps.Address:
    return pair.to(app.address) if path == "tunnel" else pair.near.outbound(verdicts.Choice(app.address))
