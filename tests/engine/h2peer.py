"""HBONE spoken by the `h2` library over a blocking TLS socket: a peer we did not write, as client and as server."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import threading
from collections.abc import Callable, Sequence

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from . import apps, pki

Headers = Sequence[tuple[str, str]]


@dataclasses.dataclass
class Stream:
    """What a peer sent on one stream. reset: the error code of its RST_STREAM."""

    number: int
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    data: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers[":status"])


class Peer:
    """One end of a tunnel. hold: do not open windows for what arrives, as a slow reader.

    inject: raw frames to go out with the next ones.
    goodbye: the error code of the other end's GOAWAY. over: the connection has ended.
    """

    def __init__(self, sock: ssl.SSLSocket, *, client: bool, max_streams: int = 1000) -> None:
        self.sock = sock
        config = h2.config.H2Configuration(
            client_side=client,
            header_encoding="utf-8",
            validate_inbound_headers=False,  # h2 wants :scheme and :path of a CONNECT too, which RFC 9113 8.5 forbids
            validate_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.streams: dict[int, Stream] = {}
        self.hold = False
        self.goodbye: int | None = None
        self.over = False
        self.pongs = 0
        self.h2.local_settings = h2.settings.Settings(
            client=client, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: max_streams}
        )
        self.inject = b""
        self.h2.initiate_connection()
        self.flush()

    def open(self, authority: str, extra: Headers = (), *, method: str = "CONNECT") -> Stream:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [(":method", method), (":authority", authority), *extra])
        self.flush()
        return self.streams.setdefault(number, Stream(number))

    def ask(self, authority: str, extra: Headers = ()) -> Stream:
        """Open a stream and wait for its status."""
        stream = self.open(authority, extra)
        self.until(lambda: bool(stream.headers) or stream.reset is not None or self.over)
        return stream

    def flush(self) -> None:
        out, self.inject = self.inject + self.h2.data_to_send(), b""
        if out:
            self.sock.sendall(out)

    def pump(self) -> bool:
        """Read once and note what came; False when the connection is over."""
        try:
            data = self.sock.recv(1 << 18)
        except (ConnectionResetError, ssl.SSLError):
            data = b""
        if not data:
            self.over = True
            return False
        for event in self.h2.receive_data(data):
            self._note(event)
        self.flush()
        return True

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert self.pump() or condition(), "the connection ended too early"

    def send(self, stream: Stream, data: bytes, *, end: bool = False) -> None:
        """Send all of `data`, waiting for windows."""
        view = memoryview(data)
        while view:
            self.until(lambda: self.room(stream) > 0)
            size = min(len(view), self.room(stream))
            self.h2.send_data(stream.number, bytes(view[:size]))
            self.flush()
            view = view[size:]
        if end:
            self.h2.end_stream(stream.number)
            self.flush()

    def ping(self) -> None:
        """Wait until the other end has seen all that was sent."""
        self.h2.ping(bytes(8))
        self.flush()
        seen = self.pongs
        self.until(lambda: self.pongs > seen)

    def room(self, stream: Stream) -> int:
        return min(self.h2.local_flow_control_window(stream.number), self.h2.max_outbound_frame_size)

    def reset(self, stream: Stream, code: int = h2.errors.ErrorCodes.CANCEL) -> None:
        self.h2.reset_stream(stream.number, code)
        self.flush()

    def release(self, stream: Stream) -> None:
        """Stop holding: open the windows for what was held."""
        self.hold = False
        self.h2.acknowledge_received_data(len(stream.data), stream.number)
        self.flush()

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived() | h2.events.ResponseReceived():
                stream = self.streams.setdefault(event.stream_id, Stream(event.stream_id))
                stream.headers = dict(event.headers)
            case h2.events.DataReceived():
                self.streams[event.stream_id].data += event.data
                if not self.hold and event.flow_controlled_length:
                    # a stream that has ended has no window left to open
                    with contextlib.suppress(h2.exceptions.StreamClosedError):
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.streams[event.stream_id].ended = True
            case h2.events.StreamReset():
                self.streams[event.stream_id].reset = int(event.error_code or 0)
            case h2.events.PingAckReceived():
                self.pongs += 1
            case h2.events.ConnectionTerminated():
                self.goodbye = int(event.error_code or 0)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tls(address: apps.Address, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A TLS connection; raises ssl.SSLError or ConnectionError if that fails."""
    sock = apps.connect(address)
    try:
        return context.wrap_socket(sock)
    except BaseException:
        sock.close()
        raise


def dial(address: apps.Address, leaf: pki.Leaf) -> Peer:
    """An HBONE client."""
    return Peer(tls(address, leaf.client_context()), client=True)


class Server:
    """An HBONE server of h2: answers every CONNECT with `status` and echoes, half-closes after the client did.

    A stream whose data contains `kill` is reset. `stop`: end each stream after the greeting and reset it without an
    error, as Envoy does when the app has finished.  requests: the headers of each CONNECT.  tunnels: TLS connections.
    """

    def __init__(
        self,
        leaf: pki.Leaf,
        *,
        status: int = 200,
        greeting: bytes = b"",
        kill: bytes = b"",
        max_streams: int = 1000,
        stop: bool = False,
    ) -> None:
        self._context = leaf.server_context()
        self._status, self._greeting, self._kill, self._max_streams = status, greeting, kill, max_streams
        self._stop = stop
        self.requests: list[dict[str, str]] = []
        self.clients: list[bytes] = []
        self.peers: list[Peer] = []
        self._lock = threading.Lock()
        self._app = apps.App(self._serve)
        self.address = self._app.address

    @property
    def tunnels(self) -> int:
        return len(self.peers)

    def _serve(self, raw: socket.socket) -> None:
        try:
            sock = self._context.wrap_socket(raw.dup(), server_side=True)
        except OSError:  # TLS errors are OSErrors: a client that refuses us; its engine reports it
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError), sock:
            self._speak(sock)

    def _speak(self, sock: ssl.SSLSocket) -> None:
        with Peer(sock, client=False, max_streams=self._max_streams) as peer:
            with self._lock:
                self.peers.append(peer)
                self.clients.append(sock.getpeercert(binary_form=True) or b"")
            answered: set[int] = set()
            echoed: dict[int, int] = {}
            while peer.pump():
                for stream in list(peer.streams.values()):
                    if stream.number not in answered:
                        answered.add(stream.number)
                        self._answer(peer, stream)
                    if self._status == 200 and stream.reset is None and not self._stop:
                        self._echo(peer, stream, echoed)

    def _answer(self, peer: Peer, stream: Stream) -> None:
        with self._lock:
            self.requests.append(stream.headers)
        refused = self._status != 200
        peer.h2.send_headers(stream.number, [(":status", str(self._status))], end_stream=refused)
        if self._greeting and not refused:
            for start in range(0, len(self._greeting), peer.h2.max_outbound_frame_size):
                peer.h2.send_data(stream.number, self._greeting[start : start + peer.h2.max_outbound_frame_size])
        if self._stop:
            peer.h2.end_stream(stream.number)
            peer.h2.reset_stream(stream.number, h2.errors.ErrorCodes.NO_ERROR)
        peer.flush()

    def _echo(self, peer: Peer, stream: Stream, echoed: dict[int, int]) -> None:
        done = echoed.get(stream.number, 0)
        if done < 0:
            return
        if self._kill and self._kill in stream.data:
            peer.reset(stream, h2.errors.ErrorCodes.CONNECT_ERROR)
            echoed[stream.number] = -1
            return
        while done < len(stream.data) and (room := peer.room(stream)) > 0:
            peer.h2.send_data(stream.number, bytes(stream.data[done : done + room]))
            done = min(len(stream.data), done + room)
        if stream.ended and done == len(stream.data):
            peer.h2.end_stream(stream.number)
            done = -1
        echoed[stream.number] = done
        peer.flush()

    def close(self) -> None:
        self._app.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
