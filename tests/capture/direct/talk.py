"""Applications that send and receive exactly so many bytes and end as they are told; each in a process of its own."""

from __future__ import annotations

import select
import socket
import struct

from ..pods import DEADLINE, tell, told

CLOSE, HALF, WAIT, ABORT = "close", "half", "wait", "abort"


def _end(sock: socket.socket, how: str) -> None:
    if how == HALF:
        sock.shutdown(socket.SHUT_WR)
    if how in (HALF, WAIT):
        assert _receive(sock, None) == 0
    if how == ABORT:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _receive(sock: socket.socket, count: int | None) -> int:
    """So many bytes, or (None) all until the end; how many."""
    received = 0
    while received != count:
        data = sock.recv(65536 if count is None else min(65536, count - received))
        if not data:
            break
        received += len(data)
    return received


def talk(channel: socket.socket, to: str, port: int, send: int, receive: int, end: str) -> None:
    """Connect, send, receive, tell that this is done; end when told to."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect((to, port))
        sock.sendall(bytes(send))
        assert _receive(sock, receive) == receive
        tell(channel, "talked")
        end = told(channel) or end
        try:
            _end(sock, end)
        except OSError as error:
            tell(channel, type(error).__name__)
            return
        tell(channel, "ended")


def hang_up(channel: socket.socket, at: str, port: int) -> None:
    """Accept everybody and close, whatever has become of them."""
    with socket.create_server(
        (at, port), backlog=128, family=socket.AF_INET6 if ":" in at else socket.AF_INET
    ) as server:
        tell(channel, "listening")
        while True:
            server.accept()[0].close()


def answer(channel: socket.socket, at: str, port: int, receive: int, send: int, end: str) -> None:
    """Serve one connection after the other like that."""
    with socket.create_server((at, port), family=socket.AF_INET6 if ":" in at else socket.AF_INET) as server:
        tell(channel, "listening")
        while True:
            sock, _ = server.accept()
            sock.settimeout(DEADLINE)
            assert _receive(sock, receive) == receive
            sock.sendall(bytes(send))
            if end == ABORT:
                told(channel)
            try:
                _end(sock, end)
            except OSError as error:
                tell(channel, type(error).__name__)


def talk_often(channel: socket.socket, to: str, port: int, count: int) -> int:
    """So many connections, of 1 byte more each, up to 2000 and over again; how many bytes came back."""
    del channel
    received = 0
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    for number in range(count):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(DEADLINE)
            sock.connect((to, port))
            sock.sendall(bytes(number % 2000 + 1))
            sock.shutdown(socket.SHUT_WR)
            received += _receive(sock, None)
    return received


def answer_often(channel: socket.socket, at: str, port: int) -> None:
    """Twice what came, on each connection; how much came in all, when told to stop."""
    came = 0
    with socket.create_server(
        (at, port), backlog=128, family=socket.AF_INET6 if ":" in at else socket.AF_INET
    ) as server:
        tell(channel, "listening")
        while server in select.select([server, channel], [], [])[0]:
            sock, _ = server.accept()
            with sock:
                sock.settimeout(DEADLINE)
                count = _receive(sock, None)
                sock.sendall(bytes(2 * count))
                came += count
        told(channel)
    tell(channel, came)
