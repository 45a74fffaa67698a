"""Applications for both ends of a connection: real TCP servers on loopback, a thread per connection, and byte patterns.

Knows nothing of engines, agents or TLS.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from tests import slowness

PATIENCE = slowness.seconds(20.0)  # any single blocking step of a test may take before it counts as hung
CHUNK = 1 << 20
PERIOD = 1048583  # of the pattern; prime, so that data shifted by any buffer size is noticed

Address = tuple[str, int]
Handler = Callable[[socket.socket], None]

_pattern = os.urandom(PERIOD)
_pattern_twice = _pattern + _pattern + _pattern[:CHUNK]


def pattern(offset: int, size: int) -> bytes:
    """`size` (<= 1 MiB) bytes of the endless pattern, from `offset` on."""
    start = offset % PERIOD
    return _pattern_twice[start : start + size]


def send_pattern(sock: socket.socket, total: int) -> None:
    """Send the first `total` bytes of the pattern, with as little Python per byte as possible."""
    fd = os.memfd_create("pattern")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(_pattern)
        sent = 0
        while sent < total:
            start = sent % PERIOD
            sent += _sendfile(sock, fd, start, min(PERIOD - start, total - sent))
    finally:
        os.close(fd)


def _sendfile(sock: socket.socket, fd: int, offset: int, count: int) -> int:
    with open(fd, "rb", closefd=False) as file:
        return sock.sendfile(file, offset, count)


def expect_pattern(sock: socket.socket, total: int | None = None) -> int:
    """Read `total` bytes (None: until EOF), each checked against the pattern; return how many there were."""
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    got = 0
    while total is None or got < total:
        room = CHUNK if total is None else min(CHUNK, total - got)
        size = sock.recv_into(view[:room])
        if size == 0:
            break
        if bytes(view[:size]) != pattern(got, size):
            raise AssertionError(f"bytes {got}..{got + size} are not what was sent")
        got += size
    if total is not None and got != total:
        raise AssertionError(f"EOF after {got} bytes, expected {total}")
    return got


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes; an earlier EOF is an error."""
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise AssertionError(f"EOF after {len(parts)} bytes, expected {size}: {bytes(parts)!r}")
        parts += part
    return bytes(parts)


def read_to_end(sock: socket.socket) -> bytes:
    parts = bytearray()
    while part := sock.recv(65536):
        parts += part
    return bytes(parts)


def reset(sock: socket.socket) -> None:
    """Close with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_reset(sock: socket.socket) -> bool:
    """Wait for the end of what is sent to `sock`; was it a reset (True) or an orderly EOF (False)?"""
    try:
        read_to_end(sock)
    except ConnectionResetError:
        return True
    return False


def is_refused(address: Address, say: bytes = b"") -> bool:
    """Dial and send this; is the connection reset, be it so soon that connect() or send() says it already?"""
    try:
        with connect(address) as sock:
            sock.sendall(say)
            return is_reset(sock)
    except (ConnectionResetError, BrokenPipeError):
        return True


def connect(address: Address, *, source: Address | None = None) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    try:
        sock.settimeout(PATIENCE)
        # before connect(): the other end may have reset the connection when that returns
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            sock.bind(source)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def loopback_listener(host: str = "127.0.0.1", port: int = 0, backlog: int = 4096) -> socket.socket:
    """A listening socket on loopback; `host` may be IPv6."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(backlog)
    return sock


@contextlib.contextmanager
def dead_port(host: str = "127.0.0.1") -> Iterator[Address]:
    """A port that refuses: bound for the duration, so nobody else gets it, but not listening."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[:2]


@contextlib.contextmanager
def mute_port(host: str = "127.0.0.1") -> Iterator[Address]:
    """A port whose SYNs are dropped: the backlog of its listener is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(loopback_listener(host, backlog=0))
        address = listener.getsockname()[:2]
        for _ in range(8):  # a backlog of 0 holds one; the first that stays in SYN-SENT proves it full
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(address)
            except TimeoutError:
                break
        else:
            raise AssertionError(f"could not fill the backlog of {address}")
        yield address


class App:
    """A TCP server; `handler` gets each accepted socket in a thread of its own, and closes it or leaves that to us.

    connected: how many were accepted. peers: their addresses as accept() told. errors: what handlers raised.
    """

    def __init__(self, handler: Handler, host: str = "127.0.0.1", *, receive_buffer: int = 0) -> None:
        self._handler = handler
        self._listener = loopback_listener(host)
        if receive_buffer:  # inherited by accepted sockets
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.address: Address = self._listener.getsockname()[:2]
        self.peers: list[Address] = []
        self.errors: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._accepting = threading.Thread(target=self._accept, name=f"app {self.address[1]}", daemon=True)
        self._accepting.start()

    @property
    def connected(self) -> int:
        return len(self.peers)

    def await_connected(self, count: int = 1) -> None:
        """Wait until so many connections were accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.peers) >= count, PATIENCE), (
                f"{len(self.peers)} connections, expected {count}"
            )

    def join(self) -> None:
        """Wait for the handlers of all accepted connections, and raise what one of them raised."""
        with self._changed:  # one that was accepted has its thread in the list by then
            threads = list(self._threads)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a handler is still waiting for its connection to end"
        if self.errors:
            raise self.errors[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.EBADF):  # close() shut us down
                    return
                raise
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            with self._changed:
                self._open.add(sock)
                self.peers.append(peer[:2])
                thread.start()
                self._threads.append(thread)
                self._changed.notify_all()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                self._handler(sock)
        except BaseException as error:  # noqa: BLE001 kept for join(), which raises it in the test's thread
            self.errors.append(error)
        finally:
            with self._changed:
                self._open.discard(sock)

    def close(self) -> None:
        """Stop accepting and end what is open."""
        with contextlib.suppress(OSError):  # a second close() finds it already shut down
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(PATIENCE)
        with self._changed:
            still_open = list(self._open)
        for sock in still_open:
            with contextlib.suppress(OSError):  # the handler may be closing it right now
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def echo(sock: socket.socket) -> None:
    """Send back what comes, half-close when the client does."""
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def greet(sock: socket.socket) -> None:
    """Speak first, as SMTP or MySQL servers do, then echo."""
    sock.sendall(b"220 ready\r\n")
    echo(sock)
