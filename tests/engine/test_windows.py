"""How far a peer may be ahead of the app that reads: further on a stream that is alone, whose reader keeps up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from . import apps, h2peer, harness, pki, process

pytestmark = pytest.mark.kernel

# of engine/bounds.h
STREAM_WINDOW = 448 << 10
WIDE_WINDOW = 2 << 20
WIDE_WINDOWS = 4
ALONE = 32 << 20

PIECE = 64 << 10
MOUTHFUL = 512 << 10
PADDING = 256  # of a frame, with its length
MOMENT_S = 0.2  # nothing came for so long: there is nothing
SLACK = 1 << 20  # of resident memory, for what is not waiting bytes


@pytest.fixture
def sink() -> Iterator[apps.App]:
    with apps.App(lambda sock: drain(sock)) as app:
        yield app


class Sender:
    """One stream of a tunnel of its own, or of another's, that sends bulk."""

    def __init__(self, peer: h2peer.Peer, app: apps.App) -> None:
        self.peer = peer
        self.stream = peer.ask(f"{app.address[0]}:{app.address[1]}")
        assert self.stream.status == 200

    @property
    def window(self) -> int:
        """What may be sent now."""
        return self.peer.h2.local_flow_control_window(self.stream.number)

    def send(self, size: int = PIECE) -> None:
        self.peer.send(self.stream, bytes(size))

    def widens(self) -> bool:
        """Send until more may be sent than any stream may, or twice what should suffice."""
        for _ in range(2 * ALONE // PIECE):
            self.send()
            if self.window > STREAM_WINDOW:
                return True
        return False

    def fill(self) -> int:
        """Send all that may be sent without waiting; how much that was."""
        sent = 0
        while (room := min(self.window, self.peer.h2.max_outbound_frame_size)) > 0:
            self.peer.h2.send_data(self.stream.number, bytes(room))
            self.peer.flush()
            sent += room
        return sent


def drain(sock: socket.socket) -> None:
    while sock.recv(1 << 20):
        pass


def test_a_stream_alone_on_its_tunnel_gets_a_wide_window(far: harness.Node, ca: pki.Authority, sink: apps.App) -> None:
    with h2peer.dial(far.tunnel(), ca.svid()) as peer:
        sender = Sender(peer, sink)
        assert sender.widens()
        assert sender.window <= WIDE_WINDOW


def test_a_neighbour_that_speaks_makes_it_narrow_again(far: harness.Node, ca: pki.Authority, sink: apps.App) -> None:
    with h2peer.dial(far.tunnel(), ca.svid()) as peer:
        sender, neighbour = Sender(peer, sink), Sender(peer, sink)
        assert sender.widens()
        neighbour.send(1)
        for _ in range(2 * WIDE_WINDOW // PIECE):  # what was promised is used up
            sender.send()
            neighbour.send(1)
        most = 0
        for _ in range(64):
            sender.send()
            neighbour.send(1)
            most = max(most, sender.window)
        assert most <= STREAM_WINDOW
        assert sender.widens(), "the neighbour is silent"


def test_streams_side_by_side_stay_narrow(far: harness.Node, ca: pki.Authority, sink: apps.App) -> None:
    with h2peer.dial(far.tunnel(), ca.svid()) as peer:
        both = Sender(peer, sink), Sender(peer, sink)
        for _ in range(2 * ALONE // PIECE):
            for sender in both:
                sender.send()
                assert sender.window <= STREAM_WINDOW


def test_a_reader_that_does_not_keep_up_gets_no_wide_window(far: harness.Node, ca: pki.Authority) -> None:
    ask, answer = threading.Semaphore(0), threading.Semaphore(0)

    def slow(sock: socket.socket) -> None:
        while ask.acquire(timeout=apps.PATIENCE):
            apps.read_exactly(sock, MOUTHFUL)
            answer.release()

    with apps.App(slow, receive_buffer=PIECE) as app, h2peer.dial(far.tunnel(), ca.svid()) as peer:
        sender = Sender(peer, app)
        for taken in range(0, 2 * ALONE, MOUTHFUL):
            for _ in range(2):  # the second: what the window was opened by meanwhile
                sender.fill()
                peer.ping()
            assert taken < ALONE or sender.window <= STREAM_WINDOW, "the sockets took no more long ago"
            ask.release()
            assert answer.acquire(timeout=apps.PATIENCE)
        peer.reset(sender.stream)


def test_few_of_a_worker_are_wide_and_one_that_ends_makes_room(
    far: harness.Node, ca: pki.Authority, sink: apps.App
) -> None:
    door = far.tunnel()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(h2peer.dial(door, ca.svid())) for _ in range(WIDE_WINDOWS + 1)]
        *first, last = [Sender(peer, sink) for peer in peers]
        assert all(sender.widens() for sender in first)
        assert not last.widens()
        first[0].peer.reset(first[0].stream)
        assert last.widens()


def test_a_reader_that_stops_has_one_wide_window_waiting_and_gets_all_of_it(
    far: harness.Node, ca: pki.Authority
) -> None:
    stop, go_on = threading.Event(), threading.Event()
    received: list[int] = []

    def stops(sock: socket.socket) -> None:
        got = 0
        while not stop.is_set():
            got += len(sock.recv(PIECE))
        assert go_on.wait(apps.PATIENCE)
        while data := sock.recv(1 << 20):
            got += len(data)
        received.append(got)

    with apps.App(stops, receive_buffer=PIECE) as app, h2peer.dial(far.tunnel(), ca.svid()) as peer:
        sender = Sender(peer, app)
        sent = 0
        while sender.window <= STREAM_WINDOW:
            assert sent < 2 * ALONE
            sender.send()
            sent += PIECE
        before = far.engine.rss()
        stop.set()
        sender.send(PIECE)  # the reader sees it
        peer.sock.settimeout(MOMENT_S)
        sent += PIECE
        with contextlib.suppress(TimeoutError):
            while True:
                sent += sender.fill()
                peer.pump()
        if not process.sanitized():
            assert far.engine.rss() - before <= WIDE_WINDOW + SLACK
        peer.sock.settimeout(apps.PATIENCE)
        go_on.set()
        peer.until(lambda: sender.window > 0)
        assert sender.window <= STREAM_WINDOW, "a reader that let so much wait does not keep up"
        peer.h2.end_stream(sender.stream.number)
        peer.flush()
        app.join()
        assert received == [sent]


@pytest.mark.parametrize("size", [1, 256])
def test_padding_is_given_back_as_bytes_are(far: harness.Node, ca: pki.Authority, sink: apps.App, size: int) -> None:
    """It counts against the window, and no app takes it."""
    with h2peer.dial(far.tunnel(), ca.svid()) as peer:
        sender = Sender(peer, sink)
        for _ in range(3 * STREAM_WINDOW // PADDING):
            peer.until(lambda: sender.window > size + PADDING)
            assert sender.window <= STREAM_WINDOW
            peer.h2.send_data(sender.stream.number, bytes(size), pad_length=PADDING - 1)
            peer.flush()
