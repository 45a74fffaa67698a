"""Hand-made packets from outside: only the pod reaches the outbound listener, and nobody passes for the pod."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ambient.capture import Capture, Role

from . import apps, pods
from .conftest import Enrol

pytestmark = pytest.mark.kernel


def syn(mac: str, source: str, to: str, port: int) -> bytes:
    """With any source, for the pod's interface, whatever routing thinks of it."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    ip: Any = IPv6 if ":" in to else IP
    return bytes(Ether(dst=mac) / ip(src=source, dst=to) / TCP(sport=4242, dport=port, flags="S", seq=1))


def send(channel: socket.socket, interface: str, frame: bytes) -> None:
    del channel
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        raw.send(frame)


@pytest.mark.parametrize(
    ("source", "to"),
    [
        pytest.param("10.77.1.2", "10.77.1.2", id="the pod's own address, to itself"),
        pytest.param("fd77:1::2", "fd77:1::2", id="the pod's own v6 address, to itself"),
        pytest.param("127.0.0.1", "10.77.1.2", id="loopback"),
        pytest.param("::1", "fd77:1::2", id="v6 loopback"),
        pytest.param("127.0.0.1", "127.0.0.1", id="loopback to loopback"),
        pytest.param("::1", "::1", id="v6 loopback to loopback"),
        pytest.param("10.77.1.2", "10.99.1.1", id="like a captured connection"),
        pytest.param("fd77:1::2", "fd99::1", id="like a captured v6 connection"),
        pytest.param("fe80::77", "fd77:1::2", id="a link-local neighbour"),
        pytest.param("10.99.1.1", "10.77.1.2", id="somebody else"),
    ],
)
@pytest.mark.parametrize("port", [8080, 15008], ids=["app port", "tunnel port"])
def test_a_forged_syn_completes_no_connection(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, source: str, to: str, port: int
) -> None:
    app = pod.start(apps.serve, "::", port)
    assert app.receive() == "listening"
    listeners = enrol(pod)
    node.run(send, pod.link, syn(pod.mac(), source, to, port))
    client = node.start(apps.dial, str(pod.v4), 8081)  # a fence: what came before it has been dealt with
    assert apps.take(listeners[Role.INBOUND_PLAIN])[1] == (str(pod.v4), 8081)
    assert client.receive()["said"] == b"engine"
    assert all(apps.idle(each) for each in listeners.values())
    assert capture.counters()["lookup_outbound"] == 0
    assert not app.waiting()


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
def test_a_syn_from_outside_to_a_listeners_port_on_loopback_gets_nowhere(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, role: Role
) -> None:
    pods.sh(f"ip netns exec {pod.name} sysctl -qw net.ipv4.conf.all.route_localnet=1")  # some CNIs do
    listeners = enrol(pod)
    port = listeners[role].getsockname()[1]
    node.run(send, pod.link, syn(pod.mac(), str(pod.gateway4), "127.0.0.1", port))
    assert pods.eventually(lambda: capture.counters()["lookup_own_listener"]) == 1
    assert all(apps.idle(each) for each in listeners.values())
