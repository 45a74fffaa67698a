"""What applications do with sockets. Each runs in a process of its own: function(channel, *arguments)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import select
import socket
from typing import Any

from .pods import DEADLINE, tell, told

MPTCP = 262
SO_BINDTODEVICE, SO_MARK, SO_BINDTOIFINDEX = 25, 36, 62
ETH_P_ALL = 3
TCP_FASTOPEN_CONNECT = 30
REFUSED = "ConnectionRefusedError"
FORBIDDEN = "PermissionError"


def dial(channel: socket.socket, to: str, port: int, how: str = "") -> dict[str, Any] | str:
    """Connect; what the application then sees of its socket, or the error's class name."""
    del channel
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, MPTCP if how == "mptcp" else 0) as sock:
        sock.settimeout(0.5 if how == "brief" else DEADLINE / 2)
        try:
            connect(sock, to, port, how)
        except OSError as error:
            return type(error).__name__
        said = sock.recv(100)  # first: fastopen's sendto returns before the handshake is over
        return {"peer": sock.getpeername()[:2], "own": sock.getsockname()[0], "said": said}


def connect(sock: socket.socket, to: str, port: int, how: str) -> None:
    kind, _, value = how.partition("=")
    match kind:
        case "source":
            sock.bind((value, 0))
        case "device":
            sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, value.encode())
        case "fastopen":  # the SYN may carry data: no connect() call at all
            sock.setblocking(True)  # without a cookie it waits for the handshake
            sock.sendto(b"hello", socket.MSG_FASTOPEN, (to, port))
            return
        case "fastopen-connect":
            sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        case "nonblocking":
            sock.setblocking(False)
            if sock.connect_ex((to, port)) not in (0, errno.EINPROGRESS):
                raise OSError("connect did not start")
            select.select([], [sock], [], DEADLINE)
            if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "connect")
            sock.settimeout(DEADLINE)
            return
        case "scope":
            sock.connect((to, port, 0, socket.if_nametoindex(value)))
            return
    sock.connect((to, port))
    if kind == "fastopen-connect":
        sock.send(b"hello")


def dial_twice(channel: socket.socket, first: tuple[str, int], then: tuple[str, int], option: int = 0) -> bytes:
    """One socket: a connect that is given up, then another; what was said, and the socket option then."""
    del channel
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(first) == errno.EINPROGRESS
        _dissolve(sock)
        sock.settimeout(DEADLINE / 2)
        sock.connect(then)
        said = sock.recv(100)
        return said + sock.getsockopt(socket.SOL_SOCKET, option, 4) if option else said


def _dissolve(sock: socket.socket) -> None:
    """Connect to AF_UNSPEC: as if the socket had never been connected."""
    if ctypes.CDLL(None, use_errno=True).connect(sock.fileno(), bytes(16), 16):
        raise OSError(ctypes.get_errno(), "dissolving")


def move(channel: socket.socket, to: str, port: int, how: str = "") -> None:
    """Connect, then do with the socket what is told, ("setsockopt", *arguments) for example; tell what came of it.

    That is "", or the error's class name. `how` may be a kind of socket, or "unconnected".
    """
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    kind = socket.SOCK_DGRAM if how == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind, MPTCP if how == "mptcp" else 0) as sock:
        sock.settimeout(DEADLINE / 2)
        if how != "unconnected":
            sock.connect((to, port))
        tell(channel, "ready")
        while True:
            name, *arguments = told(channel)
            try:
                _dissolve(sock) if name == "dissolve" else getattr(sock, name)(*arguments)
                tell(channel, "")
            except OSError as error:
                tell(channel, type(error).__name__)


def choose_congestion(channel: socket.socket, name: str, length: int) -> str:
    """An option with a value as long as that; the value it then has."""
    del channel
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode().ljust(length, b"\0"))
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def tap(channel: socket.socket, interface: str, word: bytes, end: bytes) -> bool:
    """Whether the word was in a frame on this interface, until a frame has the end."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw:
        raw.bind((interface, 0))
        tell(channel, "listening")
        seen = False
        while end not in (frame := raw.recv(65536)):
            seen |= word in frame
        return seen


def serve(channel: socket.socket, at: str, port: int, how: str = "") -> None:
    """Say 'app' to everybody, and tell who they were: [accept's address, getpeername's]."""
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, MPTCP if how == "mptcp" else 0) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if how == "fastopen":
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        server.bind((at, port))
        server.listen(16)
        tell(channel, "listening")
        while True:
            client, address = server.accept()
            named = client.getpeername()
            client.send(b"app")  # after which the client may be gone
            tell(channel, [address[:2], named[:2]])
            client.close()


def knock(channel: socket.socket, to: str, port: int) -> int:
    """Connect, say so, and connect again and again until told to stop; how often it worked."""
    socket.create_connection((to, port), timeout=DEADLINE).close()
    worked = 1
    tell(channel, "knocking")
    while not select.select([channel], [], [], 0)[0]:
        with contextlib.suppress(OSError):
            socket.create_connection((to, port), timeout=0.2).close()
            worked += 1
    told(channel)  # with it unread, what we send last would be lost
    return worked


def chat(channel: socket.socket, to: str, port: int) -> None:
    """Keep one connection: whatever is told is sent on it, and what comes back is told."""
    with socket.create_connection((to, port), timeout=DEADLINE) as sock:
        tell(channel, "connected")
        while True:
            sock.sendall(told(channel))
            tell(channel, sock.recv(100))


def echo(channel: socket.socket, at: str, port: int) -> None:
    """Serve one connection at a time, sending back what comes."""
    with socket.create_server((at, port), family=socket.AF_INET6 if ":" in at else socket.AF_INET) as server:
        tell(channel, "listening")
        while True:
            client, _ = server.accept()
            with client:
                while data := client.recv(100):
                    client.sendall(data)


def send_datagram(channel: socket.socket, to: str, port: int, say: bytes = b"x") -> None:
    del channel
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((to, port))  # the connect hook runs for these, too
        sock.send(say)


def take(listener: socket.socket, say: bytes = b"engine") -> tuple[tuple[str, int], tuple[str, int]]:
    """Accept on one of ours: (from, what was dialled), IPv4 as IPv4."""
    ready, _, _ = select.select([listener], [], [], DEADLINE)
    if not ready:
        raise TimeoutError("nobody came to the listener")
    client, address = listener.accept()
    with client:
        client.settimeout(DEADLINE)
        client.send(say)
        near = client.getsockname()
        while client.recv(100):  # to its end: closing with data unread would reset it
            pass
        return (_plain(address[0]), address[1]), (_plain(near[0]), near[1])


def idle(listener: socket.socket) -> bool:
    """Whether nobody waits at the listener now."""
    return not select.select([listener], [], [], 0)[0]


def _plain(text: str) -> str:
    return text.removeprefix("::ffff:")
