"""What an enrolled pod's applications dial comes to the outbound listener, and the application cannot tell."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ambient.capture import Capture, Role
from ambient.model.mesh import CaptureSettings

from . import apps, pods
from .conftest import Enrol

pytestmark = pytest.mark.kernel

V4, V6 = "10.99.1.1", "fd99::1"  # nobody's addresses: only capture can answer for them


@pytest.mark.parametrize(
    ("to", "how"),
    [
        pytest.param(V4, "", id="v4"),
        pytest.param(V6, "", id="v6"),
        pytest.param("::ffff:" + V4, "", id="v4-mapped"),
        pytest.param(V4, "source=10.77.1.2", id="source-bound"),
        pytest.param(V6, "source=fd77:1::2", id="v6 source-bound"),
        pytest.param(V4, "source=0.0.0.0", id="bound to 0.0.0.0"),
        pytest.param(V6, "source=::", id="bound to ::"),
        pytest.param(V4, "mptcp", id="mptcp"),
        pytest.param(V6, "mptcp", id="v6 mptcp"),
        pytest.param(V4, "fastopen", id="fastopen by sendto"),
        pytest.param(V4, "fastopen-connect", id="fastopen by connect"),
        pytest.param(V4, "nonblocking", id="nonblocking"),
        pytest.param("169.254.169.254", "", id="v4 link-local"),
    ],
)
def test_a_connect_is_captured_and_looks_untouched(
    capture: Capture, enrol: Enrol, pod: pods.Pod, to: str, how: str
) -> None:
    listeners = enrol(pod)
    app = pod.start(apps.dial, to, 80, how)
    source, dialled = apps.take(listeners[Role.OUTBOUND])
    seen = app.receive()
    plain = to.removeprefix("::ffff:")
    assert dialled == (plain, 80)
    assert seen["peer"] == (to, 80)
    assert seen["own"].removeprefix("::ffff:") == source[0] == str(pod.v6 if ":" in plain else pod.v4)
    assert seen["said"] == b"engine"
    assert capture.counters()["connect_captured"] == 1


@pytest.mark.parametrize(
    ("to", "how"),
    [
        pytest.param(V4, "device=eth0", id="bound to a device"),
        pytest.param(V6, "device=eth0", id="v6 bound to a device"),
        pytest.param("fe80::1", "scope=eth0", id="link-local, whose scope is a device"),
    ],
)
def test_a_connect_that_would_escape_is_refused(enrol: Enrol, pod: pods.Pod, to: str, how: str) -> None:
    enrol(pod)
    assert pod.run(apps.dial, to, 80, how) == apps.FORBIDDEN


@pytest.mark.parametrize(
    ("at", "to"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", id="loopback"),
        pytest.param("::1", "::1", id="v6 loopback"),
        pytest.param("::", "::ffff:127.0.0.1", id="mapped loopback"),
        pytest.param("0.0.0.0", "0.0.0.0", id="unspecified"),
        pytest.param("::", "::", id="v6 unspecified"),
        pytest.param("0.0.0.0", "10.77.1.2", id="own address"),
        pytest.param("::", "fd77:1::2", id="own v6 address"),
    ],
)
def test_a_pod_talks_to_itself_without_the_mesh(
    capture: Capture, enrol: Enrol, pod: pods.Pod, at: str, to: str
) -> None:
    enrol(pod)
    server = pod.start(apps.serve, at, 8080)
    assert server.receive() == "listening"
    assert pod.run(apps.dial, to, 8080)["said"] == b"app"
    assert capture.counters()["connect_captured"] == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        pytest.param(CaptureSettings(exclude_outbound_ports=frozenset({8080})), "connect_excluded_port", id="port"),
        pytest.param(
            CaptureSettings(exclude_outbound_cidrs=(ip_network("10.77.0.0/16"),)), "connect_excluded_cidr", id="network"
        ),
    ],
)
def test_an_excluded_destination_is_dialled_directly(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, settings: CaptureSettings, reason: str
) -> None:
    listeners = enrol(pod, settings)
    server = node.start(apps.serve, str(pod.gateway4), 8080)
    try:
        assert server.receive() == "listening"
        assert pod.run(apps.dial, str(pod.gateway4), 8080)["said"] == b"app"
    finally:
        server.finish()
    assert capture.counters()[reason] == 1
    enrol(pod)  # the exclusion is taken back
    app = pod.start(apps.dial, str(pod.gateway4), 8080)
    apps.take(listeners[Role.OUTBOUND])
    assert app.receive()["said"] == b"engine"


def test_an_excluded_v6_network_does_not_exclude_its_neighbour(enrol: Enrol, pod: pods.Pod) -> None:
    listeners = enrol(pod, CaptureSettings(exclude_outbound_cidrs=(ip_network("fd98::/16"),)))
    app = pod.start(apps.dial, V6, 80)
    apps.take(listeners[Role.OUTBOUND])
    assert app.receive()["said"] == b"engine"


def test_another_pods_exclusions_do_not_apply(enrol: Enrol, node: pods.Node, pod: pods.Pod) -> None:
    other = node.pod()
    everything = (ip_network("0.0.0.0/0"),)
    enrol(other, CaptureSettings(exclude_outbound_ports=frozenset({80}), exclude_outbound_cidrs=everything))
    listeners = enrol(pod)
    app = pod.start(apps.dial, V4, 80)
    apps.take(listeners[Role.OUTBOUND])
    assert app.receive()["said"] == b"engine"


def test_a_socket_that_gave_up_a_captured_connect_dials_an_excluded_destination_directly(
    enrol: Enrol, node: pods.Node, pod: pods.Pod
) -> None:
    listeners = enrol(pod, CaptureSettings(exclude_outbound_ports=frozenset({8080})))
    for each in listeners.values():
        each.close()  # so that the captured connect is refused
    server = node.start(apps.serve, str(pod.gateway4), 8080)
    try:
        assert server.receive() == "listening"
        assert pod.run(apps.dial_twice, (V4, 80), (str(pod.gateway4), 8080)) == b"app"
    finally:
        server.finish()


def test_datagrams_pass_and_are_counted(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    enrol(pod)
    before = capture.uncaptured(pod.netns.cookie)["udp"]
    pod.run(apps.send_datagram, str(pod.gateway4), 9)
    assert capture.uncaptured(pod.netns.cookie)["udp"] == before + 1
    assert capture.counters()["connect_not_tcp"] == 1


def test_a_pod_that_is_not_enrolled_is_left_alone(capture: Capture, node: pods.Node, pod: pods.Pod) -> None:
    server = node.start(apps.serve, str(pod.gateway4), 8080)
    try:
        assert server.receive() == "listening"
        assert pod.run(apps.dial, str(pod.gateway4), 8080, "device=eth0")["said"] == b"app"
    finally:
        server.finish()
    assert capture.counters()["connect_not_enrolled"] == 1


def test_the_exempt_cgroup_dials_directly_from_inside_the_pods_namespace(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod
) -> None:
    enrol(pod)
    engine = node.cgroup / "engine"
    engine.mkdir()
    capture.exempt(engine)
    server = node.start(apps.serve, str(pod.gateway4), 8080)
    try:
        assert server.receive() == "listening"
        seen = pod.run_in(engine, apps.dial, str(pod.gateway4), 8080)
        assert (seen["said"], seen["own"]) == (b"app", str(pod.v4))
    finally:
        server.finish()
    assert capture.counters()["connect_exempt"] == 1
