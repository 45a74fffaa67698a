"""What was left alone by a verdict that stands no more: nothing that an application does keeps it from being ended."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ambient.capture import Role, direct
from ambient.capture.abi import Kind

from .. import apps, pods
from ..captured import DEVICE, INDEX, Option
from .conftest import Pair

pytestmark = pytest.mark.kernel

TCP_FASTOPEN_NO_COOKIE = 34


@pytest.fixture
def outside(pair: Pair, node: pods.Node) -> Iterator[direct.Place]:
    """Nobody of the mesh; what connects is answered, and said goodbye to only by its end."""
    at = (pair.client.gateway6 if pair.family == "v6" else pair.client.gateway4), 8080
    server = node.start(hold, str(at[0]), at[1])
    assert server.receive() == "listening"
    pair.rule(Kind.PASS, at)
    yield at
    server.finish()


def hold(channel: socket.socket, at: str, port: int) -> None:
    """Accept, tell what came in, and answer it."""
    with socket.create_server((at, port), family=socket.AF_INET6 if ":" in at else socket.AF_INET) as server:
        pods.tell(channel, "listening")
        while True:
            client, _ = server.accept()
            while data := client.recv(100):
                pods.tell(channel, data)
                client.send(data)
            client.close()


@pytest.mark.parametrize("option", [DEVICE, INDEX], ids=str)
def test_one_that_lives_is_bound_to_no_device_so_it_is_found_when_it_must_end(
    pair: Pair, outside: direct.Place, option: Option
) -> None:
    app = pair.client.start(apps.move, *pair.spelled(outside))
    assert app.receive() == "ready"
    app.tell(("setsockopt", *option))
    assert app.receive() == apps.FORBIDDEN
    assert pair.delete(outside)
    assert pair.capture.direct.destroy(pair.capture.direct.flows()) == 1
    app.tell(("sendall", b"more"))
    assert app.receive() == "ConnectionAbortedError"


def late(channel: socket.socket, to: str, port: int) -> str:
    """connect() sends nothing yet; the first send does, when told to."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.setsockopt(socket.IPPROTO_TCP, apps.TCP_FASTOPEN_CONNECT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        sock.connect((to, port))
        pods.tell(channel, "connected")
        pods.told(channel)
        try:
            sock.send(b"secret")
            return sock.recv(100).decode()
        except OSError as error:
            return type(error).__name__


def test_one_that_connects_by_a_verdict_and_sends_after_it_is_the_engines(pair: Pair, outside: direct.Place) -> None:
    """TCP_FASTOPEN_CONNECT puts off the SYN for as long as the application likes."""
    app = pair.client.start(late, *pair.spelled(outside))
    assert app.receive() == "connected"
    assert pair.delete(outside)
    assert pair.capture.direct.flows() == []
    app.tell(None)
    assert apps.take(pair.listeners["client"][Role.OUTBOUND])[1] == (str(outside[0]), outside[1])
    assert app.receive() == "engine"
    assert pair.counted("connect_passed", "connect_diverted") == [1, 1]
