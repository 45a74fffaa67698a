"""An application that the engine dialled sees its real client, in accept() as in getpeername()."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

import pytest

from ambient.capture import Capture, abi
from ambient.capture.libbpf import Map

from . import apps, pods
from .conftest import Enrol

pytestmark = pytest.mark.kernel


def dial_for(channel: socket.socket, cookie: int, client: tuple[str, int], at: str, to: str) -> bytes:
    """What the engine does, without any privilege: bind, write who the client is, connect."""
    clients = Map(pods.told_fd(channel))
    os.setgid(65534)
    os.setuid(65534)
    with socket.socket(socket.AF_INET6 if ":" in at else socket.AF_INET) as sock:
        sock.bind((at, 0))
        key = abi.ClientKey(cookie, abi.Ip.of(ip_address(at)), sock.getsockname()[1])
        clients.put(bytes(key), bytes(abi.ClientValue(abi.Ip.of(ip_address(client[0])), client[1])))
        sock.settimeout(pods.DEADLINE)
        sock.connect((to, 8080))
        said = sock.recv(100)
    clients.delete(bytes(key))
    return said


@pytest.mark.parametrize(
    ("client", "at", "to", "server", "shown"),
    [
        pytest.param("10.5.5.5", "10.77.1.2", "10.77.1.2", "0.0.0.0", "10.5.5.5", id="v4"),
        pytest.param("fd55::5", "fd77:1::2", "fd77:1::2", "::", "fd55::5", id="v6"),
        pytest.param("10.5.5.5", "10.77.1.2", "10.77.1.2", "::", "::ffff:10.5.5.5", id="v4-mapped"),
        pytest.param("10.5.5.5", "::ffff:10.77.1.2", "::ffff:10.77.1.2", "0.0.0.0", "10.5.5.5", id="dialled mapped"),
        pytest.param("fd55::5", "10.77.1.2", "10.77.1.2", "::", "fd55::5", id="v6 client on a v4 hop"),
        pytest.param("fd55::5", "10.77.1.2", "10.77.1.2", "0.0.0.0", "10.77.1.2", id="what cannot be shown is not"),
    ],
)
@pytest.mark.parametrize("how", ["", "mptcp"], ids=["tcp", "mptcp"])
def test_the_application_sees_the_client(
    capture: Capture, enrol: Enrol, pod: pods.Pod, client: str, at: str, to: str, server: str, shown: str, how: str
) -> None:
    enrol(pod)
    app = pod.start(apps.serve, server, 8080, how)
    assert app.receive() == "listening"
    engine = pod.start(dial_for, pod.netns.cookie, (client, 4242), at, to)
    engine.send_fd(capture.clients_map_fd)
    assert engine.receive() == b"app"
    accepted, named = app.receive()
    assert accepted == named
    assert accepted[0] == shown
    assert (accepted[1] == 4242) == (shown != at)


def test_other_connections_keep_their_peer(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    enrol(pod)
    app = pod.start(apps.serve, "0.0.0.0", 8080)
    assert app.receive() == "listening"
    seen = pod.run(apps.dial, str(pod.v4), 8080)
    accepted, named = app.receive()
    assert accepted == named
    assert accepted[0] == seen["own"] == str(pod.v4)
    assert capture.counters()["peername_shown"] == 0


def test_the_same_addresses_in_another_pod_are_another_matter(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod
) -> None:
    other = node.pod()
    enrol(pod)
    app = pod.start(apps.serve, "0.0.0.0", 8080)
    assert app.receive() == "listening"
    engine = pod.start(dial_for, other.netns.cookie, ("10.5.5.5", 4242), str(pod.v4), str(pod.v4))
    engine.send_fd(capture.clients_map_fd)
    assert engine.receive() == b"app"
    assert app.receive()[0][0] == str(pod.v4)


def test_clear_clients_forgets_all_but_what_living_engines_wrote(capture: Capture) -> None:
    clients = Map(os.dup(capture.clients_map_fd))
    keys = {writer: bytes(abi.ClientKey(1, abi.Ip.of(ip_address("10.0.0.1")), writer)) for writer in (7, 8)}
    for writer, key in keys.items():
        clients.put(key, bytes(abi.ClientValue(abi.Ip.of(ip_address("10.0.0.2")), 2, writer)))
    capture.clear_clients(frozenset({8}))
    assert clients.get(keys[7]) is None
    assert clients.get(keys[8]) is not None
    capture.clear_clients(frozenset())
    assert clients.get(keys[8]) is None
    clients.close()
