"""What connections have carried so far, from the kernel; over loopback, which takes no root."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from ambient.capture import sockdiag
from ambient.capture.sockdiag import End

Pair = tuple[socket.socket, socket.socket]


def end(name: tuple[str, int]) -> End:
    ip = ipaddress.ip_address(name[0])
    return getattr(ip, "ipv4_mapped", None) or ip, name[1]


@contextlib.contextmanager
def connected(how: str) -> Iterator[Pair]:
    """Client and server."""
    family = socket.AF_INET6 if how == "v6" else socket.AF_INET
    here = "::1" if how == "v6" else "127.0.0.1"
    with socket.create_server((here, 0), family=family) as listener:
        dialler = socket.AF_INET if how == "v4" else socket.AF_INET6
        to = f"::ffff:{here}" if how == "v4-mapped" else here
        with socket.socket(dialler) as client:
            client.connect((to, listener.getsockname()[1]))
            server, _ = listener.accept()
            with server:
                yield client, server


def carried(client: socket.socket) -> tuple[int, int] | None:
    ends = end(client.getsockname()[:2]), end(client.getpeername()[:2])
    return sockdiag.carried([ends]).get(ends)


def comes_to(client: socket.socket, expected: tuple[int, int]) -> bool:
    """An acknowledgement may be under way, of which nobody is told."""
    deadline = time.monotonic() + 2
    while (found := carried(client)) != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    return found == expected


@pytest.mark.parametrize("how", ["v4", "v6", "v4-mapped"])
def test_bytes_are_the_applications_in_every_state(how: str) -> None:
    """SYN and FIN have sequence numbers too, and are no bytes."""
    with connected(how) as (client, server):
        assert comes_to(client, (0, 0))
        client.sendall(bytes(5))
        assert len(server.recv(10)) == 5
        server.sendall(bytes(3000))
        assert comes_to(client, (5, 3000))
        server.shutdown(socket.SHUT_WR)  # CLOSE_WAIT at the client
        assert len(b"".join(iter(lambda: client.recv(4096), b""))) == 3000
        assert comes_to(client, (5, 3000))
        client.sendall(bytes(2))
        assert comes_to(client, (7, 3000))


@pytest.mark.parametrize("how", ["v4", "v6", "v4-mapped"])
def test_one_that_is_half_closed_by_its_client_still_counts_what_comes(how: str) -> None:
    with connected(how) as (client, server):
        client.sendall(bytes(5))
        client.shutdown(socket.SHUT_WR)  # FIN_WAIT2 when it is acknowledged
        assert server.recv(10) + server.recv(10) == bytes(5)
        assert comes_to(client, (5, 0))
        server.sendall(bytes(3))
        assert comes_to(client, (5, 3))


def test_what_is_over_or_never_was_has_no_figures() -> None:
    with connected("v4") as (client, server):
        ends = end(client.getsockname()), end(client.getpeername())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert sockdiag.carried([ends]) == {}
    nowhere = (ipaddress.ip_address("127.0.0.1"), 1), (ipaddress.ip_address("127.0.0.1"), 2)
    assert sockdiag.carried([nowhere, nowhere]) == {}


def test_a_listener_is_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = end(listener.getsockname())
        assert sockdiag.carried([(here, (ipaddress.ip_address("127.0.0.1"), 1))]) == {}
