"""Somebody answers whom the server's lookup never let the connection in to: not one byte of the application leaves."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ambient.capture import Role, direct
from ambient.model.mesh import IPAddress

from .. import apps, pods
from .conftest import PORT, Pair

pytestmark = pytest.mark.kernel

WORD, END = b"a word in plaintext", b"the tap may stop"


def say(channel: socket.socket, to: str, port: int, how: str) -> None:
    """Connect and talk, whatever comes of it."""
    del channel
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(pods.DEADLINE / 2)  # a new pod's IPv6 needs a second
        try:
            apps.connect(sock, to, port, how)
            sock.settimeout(0.5)
            while True:
                sock.sendall(WORD)
                if not sock.recv(100):
                    return
        except OSError:
            return


@contextmanager
def tapped(pair: Pair) -> Iterator[Callable[[], bool]]:
    """Whether the word left the client's pod."""
    tap = pair.client.node.start(apps.tap, pair.client.link, WORD, END)
    assert tap.receive() == "listening"

    def leaked() -> bool:
        pair.client.run(apps.send_datagram, str(pair.client.gateway4), 9, END)
        return bool(tap.receive())

    yield leaked
    tap.finish()


@pytest.fixture
def impostor(pair: Pair, node: pods.Node) -> Iterator[IPAddress]:
    """The address of a pod of the node that is not of the mesh, and serves."""
    pod = node.pod()
    at = pod.v6 if pair.family == "v6" else pod.v4
    server = pod.start(apps.serve, str(at), PORT)
    assert server.receive() == "listening"
    yield at
    server.finish()


@pytest.mark.parametrize("how", ["", "nonblocking"])
def test_an_address_that_is_another_pods_by_now_gets_no_byte(pair: Pair, impostor: IPAddress, how: str) -> None:
    at = impostor, PORT
    pair.allow(pair.vip, pair.endpoint(ip=at[0]))
    with tapped(pair) as leaked:
        pair.client.run(say, *pair.spelled(pair.vip), how)
        assert not leaked()
    (record,) = pair.ended()
    assert record.outcome is direct.Outcome.UNADMITTED
    assert (record.flow.admitted, record.flow.sealed) == (False, True)
    assert (record.flow.destination, record.flow.dialled) == (at, pair.vip)
    assert (record.bytes_out, record.bytes_in) == (0, 0)
    assert pair.counted("flow_sealed", "lookup_direct") == [1, 0]


def test_an_address_beyond_the_node_gets_no_byte(pair: Pair) -> None:
    beyond = pair.client.gateway6 if pair.family == "v6" else pair.client.gateway4
    server = pair.client.node.start(apps.serve, str(beyond), PORT)
    assert server.receive() == "listening"
    pair.allow(pair.vip, pair.endpoint(ip=beyond))
    with tapped(pair) as leaked:
        pair.client.run(say, *pair.spelled(pair.vip), "")
        assert not leaked()
    assert pair.ended()[0].outcome is direct.Outcome.UNADMITTED
    server.finish()


@pytest.mark.parametrize("gone", ["rule del fwmark 0x53a/0xfff lookup 15008", "route flush table 15008"])
def test_without_a_rule_or_a_route_it_gets_no_byte_either_and_the_agent_hears_at_once(
    pair: Pair, impostor: IPAddress, gone: str
) -> None:
    pair.client.ip(f"{'-6' if pair.family == 'v6' else '-4'} {gone}")
    pair.allow(pair.vip, pair.endpoint(ip=impostor))
    with tapped(pair) as leaked:
        pair.client.run(say, *pair.spelled(pair.vip), "")
        assert not leaked()
    assert pair.ended()[0].flow.sealed


def test_the_plaintext_listener_of_the_server_itself_gets_no_byte(pair: Pair) -> None:
    """As when the verdict was taken back between the connect and the SYN; PERMISSIVE would carry it on."""
    pair.allow(pair.vip)
    listener = pair.listeners["server"][Role.INBOUND_PLAIN]
    with tapped(pair) as leaked:
        with pods.unforwarded(pair.client.node):
            app = pair.client.start(say, *pair.spelled(pair.vip), "")
            pods.eventually(pair.capture.direct.flows)
            pair.delete(pair.vip)
        app.receive()
        assert not leaked()
    assert pair.ended()[0].outcome is not direct.Outcome.CLOSED
    assert pair.counted("lookup_direct") == [0]
    if not apps.idle(listener):
        taken, _ = listener.accept()
        with taken:
            assert taken.recv(100) == b""
    app.finish()
