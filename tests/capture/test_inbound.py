"""What is sent to an enrolled pod comes to the engine's listeners, whatever the application listens on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.capture import Capture, Role, abi
from ambient.model.mesh import CaptureSettings

from . import apps, pods
from .conftest import Enrol

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("to", "port", "role"),
    [
        pytest.param("10.77.1.2", 8080, Role.INBOUND_PLAIN, id="plaintext"),
        pytest.param("fd77:1::2", 8080, Role.INBOUND_PLAIN, id="v6 plaintext"),
        pytest.param("10.77.1.2", 9, Role.INBOUND_PLAIN, id="a port nobody listens on"),
        pytest.param("10.77.1.2", 15008, Role.INBOUND_TUNNEL, id="tunnel"),
        pytest.param("fd77:1::2", 15008, Role.INBOUND_TUNNEL, id="v6 tunnel"),
    ],
)
@pytest.mark.parametrize(
    ("at", "how"),
    [
        pytest.param("0.0.0.0", "", id="app on 0.0.0.0"),
        pytest.param("::", "", id="app on ::"),
        pytest.param("10.77.1.2", "", id="app on its address"),
        pytest.param("::", "mptcp", id="mptcp app"),
        pytest.param("0.0.0.0", "fastopen", id="fastopen app"),
    ],
)
def test_a_connection_to_the_pod_comes_to_the_listener_of_its_kind(
    enrol: Enrol, node: pods.Node, pod: pods.Pod, to: str, port: int, role: Role, at: str, how: str
) -> None:
    app = pod.start(apps.serve, at, 8080, how)
    assert app.receive() == "listening"
    listeners = enrol(pod)
    client = node.start(apps.dial, to, port)
    source, dialled = apps.take(listeners[role])
    assert dialled == (to, port)
    assert source[0] == str(pod.gateway6 if ":" in to else pod.gateway4)
    assert client.receive()["said"] == b"engine"
    client.finish()


@pytest.mark.parametrize("how", ["mptcp", "fastopen"])
def test_special_clients_come_to_the_listener_as_well(enrol: Enrol, node: pods.Node, pod: pods.Pod, how: str) -> None:
    listeners = enrol(pod)
    client = node.start(apps.dial, str(pod.v4), 8080, how)
    apps.take(listeners[Role.INBOUND_PLAIN])
    assert client.receive()["said"] == b"engine"
    client.finish()


@pytest.mark.parametrize("to", ["10.77.1.2", "fd77:1::2"])
def test_an_excluded_port_reaches_the_application(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, to: str
) -> None:
    app = pod.start(apps.serve, "::", 8080)
    assert app.receive() == "listening"
    listeners = enrol(pod, CaptureSettings(exclude_inbound_ports=frozenset({8080})))
    assert node.run(apps.dial, to, 8080)["said"] == b"app"
    assert all(apps.idle(each) for each in listeners.values())
    assert capture.counters()["lookup_excluded_port"] == 1


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_a_probe_is_the_applications_to_answer_or_not(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, version: int
) -> None:
    """A probe that the engine answered would say that an application listens which does not."""
    to = str(pod.v4 if version == 4 else pod.v6)
    listeners = enrol(pod, CaptureSettings(), 8080)
    capture.know_node(frozenset({pod.gateway4, pod.gateway6}))
    assert node.run(apps.dial, to, 8080) == apps.REFUSED
    app = pod.start(apps.serve, "::", 8080)
    assert app.receive() == "listening"
    assert node.run(apps.dial, to, 8080)["said"] == b"app"
    assert all(apps.idle(each) for each in listeners.values())
    assert capture.counters()["lookup_node"] == 2
    for port, role in ((15008, Role.INBOUND_TUNNEL), (8081, Role.INBOUND_PLAIN)):
        client = node.start(apps.dial, to, port)
        apps.take(listeners[role])
        assert client.receive()["said"] == b"engine"
        client.finish()


def test_what_is_known_of_the_node_is_mended(capture: Capture, pod: pods.Pod, bpffs: Path) -> None:
    capture.know_node(frozenset({pod.gateway4}))
    assert capture.verify() == []
    pods.delete_entry(bpffs, "node_addresses", bytes(abi.Ip.of(pod.gateway4)))
    assert capture.verify() == ["the node's own addresses were different"]
    assert capture.verify() == []


def test_an_address_the_node_has_no_more_is_anybodys(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod
) -> None:
    listeners = enrol(pod, CaptureSettings(), 8080)
    capture.know_node(frozenset({pod.gateway4}))
    capture.know_node(frozenset({pod.gateway6}))
    client = node.start(apps.dial, str(pod.v4), 8080)
    apps.take(listeners[Role.INBOUND_PLAIN])
    assert client.receive()["said"] == b"engine"
    client.finish()


def test_the_link_local_address_is_guarded_like_the_others(enrol: Enrol, node: pods.Node, pod: pods.Pod) -> None:
    app = pod.start(apps.serve, "::", 8080)
    assert app.receive() == "listening"
    listeners = enrol(pod)
    link_local = pod.link_local()
    client = node.start(apps.dial, link_local, 8080, "scope=v1")
    _, dialled = apps.take(listeners[Role.INBOUND_PLAIN])
    assert dialled == (link_local, 8080)
    assert apps.idle(listeners[Role.OUTBOUND])
    assert client.receive()["said"] == b"engine"
    client.finish()


def test_a_second_address_the_mesh_does_not_know_is_guarded_like_the_others(
    enrol: Enrol, node: pods.Node, pod: pods.Pod
) -> None:
    pod.ip("addr add 10.66.0.1/32 dev eth0")
    node.ip(f"route add 10.66.0.1/32 via {pod.v4}")
    listeners = enrol(pod)
    client = node.start(apps.dial, "10.66.0.1", 8080)
    apps.take(listeners[Role.INBOUND_PLAIN])
    assert apps.idle(listeners[Role.OUTBOUND])
    assert client.receive()["said"] == b"engine"
    client.finish()


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
def test_an_application_cannot_dial_a_listener_on_loopback(
    capture: Capture, enrol: Enrol, pod: pods.Pod, role: Role
) -> None:
    listeners = enrol(pod)
    port = listeners[role].getsockname()[1]
    assert pod.run(apps.dial, "127.0.0.1", port) == apps.REFUSED
    assert capture.counters()["lookup_own_listener"] == 1


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
def test_a_listeners_own_port_is_nothing_special_from_outside(
    enrol: Enrol, node: pods.Node, pod: pods.Pod, role: Role
) -> None:
    listeners = enrol(pod)
    client = node.start(apps.dial, str(pod.v4), listeners[role].getsockname()[1])
    apps.take(listeners[Role.INBOUND_PLAIN])
    assert client.receive()["said"] == b"engine"
    client.finish()


@pytest.mark.parametrize("port", [8080, 15008], ids=["plaintext", "tunnel"])
@pytest.mark.parametrize("to", ["10.77.1.2", "fd77:1::2"])
def test_without_a_listener_connections_are_refused_not_given_to_the_application(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, to: str, port: int
) -> None:
    app = pod.start(apps.serve, "::", port)
    assert app.receive() == "listening"
    for each in enrol(pod).values():
        each.close()
    assert node.run(apps.dial, to, port) == apps.REFUSED
    assert capture.counters()["lookup_no_listener"] == 1


def test_without_a_listener_nothing_leaves_the_pod(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod
) -> None:
    server = node.start(apps.serve, str(pod.gateway4), 8080)
    assert server.receive() == "listening"
    for each in enrol(pod).values():
        each.close()
    assert pod.run(apps.dial, str(pod.gateway4), 8080, "brief") == "TimeoutError"
    assert capture.counters()["lookup_no_listener"] >= 1
    server.finish()


def test_without_its_map_entry_nothing_gets_in(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, bpffs: Path
) -> None:
    app = pod.start(apps.serve, "::", 8080)
    assert app.receive() == "listening"
    enrol(pod)
    pods.delete_entry(bpffs, "pods", pod.netns.cookie)
    assert node.run(apps.dial, str(pod.v4), 8080) == apps.REFUSED
    assert capture.counters()["lookup_no_pod"] == 1
