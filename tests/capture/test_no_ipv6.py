"""A pod whose network namespace has IPv6 switched off, a kernel that has none, and pods where it comes and goes."""

from __future__ import annotations

import socket

import pytest

from ambient.capture import Capture, Role, check, sockets
from ambient.model.mesh import CaptureSettings

from . import apps, pods
from .captured import DEVICE, connection, mark
from .conftest import Enrol

pytestmark = pytest.mark.kernel

NOWHERE = "10.99.1.1"


@pytest.fixture
def pod(node: pods.Node) -> pods.Pod:
    return node.pod(ipv6=False)


def switch(pod: pods.Pod, *, off: bool, where: str = "all") -> None:
    pods.sh(f"ip netns exec {pod.name} sysctl -qw net.ipv6.conf.{where}.disable_ipv6={int(off)}")


@pytest.mark.parametrize("to", [NOWHERE, "::ffff:" + NOWHERE], ids=["v4", "v4-mapped"])
def test_what_it_dials_is_captured(enrol: Enrol, pod: pods.Pod, to: str) -> None:
    if not pods.KERNEL_HAS_IPV6 and ":" in to:
        pytest.skip("there are no mapped addresses without IPv6")
    listeners = enrol(pod)
    app = pod.start(apps.dial, to, 80)
    source, dialled = apps.take(listeners[Role.OUTBOUND])
    assert (source[0], dialled) == (str(pod.v4), (NOWHERE, 80))
    assert app.receive()["said"] == b"engine"


@pytest.mark.parametrize(("port", "role"), [(8080, Role.INBOUND_PLAIN), (15008, Role.INBOUND_TUNNEL)])
def test_what_is_sent_to_it_is_captured(enrol: Enrol, node: pods.Node, pod: pods.Pod, port: int, role: Role) -> None:
    app = pod.start(apps.serve, "0.0.0.0", 8080)
    assert app.receive() == "listening"
    listeners = enrol(pod)
    client = node.start(apps.dial, str(pod.v4), port)
    assert apps.take(listeners[role])[1] == (str(pod.v4), port)
    assert client.receive()["said"] == b"engine"
    client.finish()


def test_the_engines_sockets_reach_its_application(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    enrol(pod)
    app = pod.start(apps.serve, "0.0.0.0", 8080)
    assert app.receive() == "listening"
    (sock,) = capture.make_sockets(pod.netns.cookie, 1)
    with sock:
        sock.settimeout(pods.DEADLINE)
        mapped = sock.family == socket.AF_INET6
        sock.connect((f"::ffff:{pod.v4}" if mapped else str(pod.v4), 8080))
        assert sock.recv(100) == b"app"


def test_a_captured_socket_stays_captured(enrol: Enrol, pod: pods.Pod) -> None:
    with connection(pod, enrol(pod)[Role.OUTBOUND], "v4") as captured:
        assert [captured.do("setsockopt", *option) for option in (DEVICE, mark(0))] == [apps.FORBIDDEN] * 2
        assert not captured.leaks()


def test_it_comes_back_from_removal_and_leaves_nothing(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    def shown() -> list[str]:
        families = ("-4", "-6") if pods.KERNEL_HAS_IPV6 else ("-4",)
        return [pod.ip(f"{family} {what}") for family in families for what in ("rule", "route show table all")]

    before = shown()
    enrol(pod)
    assert capture.verify() == []
    pod.ip("route flush table 15008")
    assert capture.verify() == [f"pod {pod.netns.cookie}: its IPv4 route by lo, eth0 was gone"]
    capture.forget(pod.netns.cookie)
    assert shown() == before


def test_the_machine_is_found_fit(capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod) -> None:
    del capture
    enrol(pod)
    sleeper = pod.start(apps.serve, "0.0.0.0", 8080)  # a process by which the namespace is found
    assert sleeper.receive() == "listening"
    found = {each.name: each for each in check.findings(node.cgroup)}
    assert found["policy routing"].ok
    assert found["routing rules"].ok
    assert found["transparent sockets"].ok
    for each in sockets.listeners().values():
        each.close()


needs_ipv6 = pytest.mark.skipif(not pods.KERNEL_HAS_IPV6, reason="this kernel has no IPv6")


@needs_ipv6
def test_ipv6_that_is_switched_on_later_is_captured_once_it_is_noticed(
    capture: Capture, enrol: Enrol, pod: pods.Pod
) -> None:
    listeners = enrol(pod)
    switch(pod, off=False)
    pod.ip(f"addr add {pod.v6}/64 dev eth0 nodad")
    pod.ip(f"-6 route add default via {pod.gateway6}")
    assert capture.verify() == [f"pod {pod.netns.cookie}: its IPv6 route by lo was gone"]
    assert capture.verify() == []
    app = pod.start(apps.dial, "fd99::1", 80)
    apps.take(listeners[Role.OUTBOUND])
    assert app.receive()["said"] == b"engine"


@needs_ipv6
def test_before_it_is_noticed_nothing_leaves_by_it(enrol: Enrol, pod: pods.Pod) -> None:
    enrol(pod)
    switch(pod, off=False)
    pod.ip(f"addr add {pod.v6}/64 dev eth0 nodad")
    server = pod.node.start(apps.serve, str(pod.gateway6), 8080)
    assert server.receive() == "listening"
    assert pod.run(apps.dial, str(pod.gateway6), 8080, "brief") == apps.FORBIDDEN
    assert not server.waiting()
    server.finish()


@needs_ipv6
@pytest.mark.parametrize(("where", "families"), [("all", 2), ("lo", 2), ("eth0", 1)])
def test_ipv6_that_is_switched_off_later_takes_nothing_else_along(
    capture: Capture, enrol: Enrol, node: pods.Node, where: str, families: int
) -> None:
    pod = node.pod()
    listeners = enrol(pod)
    switch(pod, off=True, where=where)
    addresses, settings = pod.addresses[:families], CaptureSettings()  # a status may name what is gone
    again = capture.enrol(pod.netns, addresses=addresses, settings=settings, listeners=listeners)
    assert again == dict(listeners)
    assert capture.verify() == []
    app = pod.start(apps.dial, NOWHERE, 80)
    apps.take(listeners[Role.OUTBOUND])
    assert app.receive()["said"] == b"engine"


@needs_ipv6
def test_where_only_loopback_has_none_ipv6_is_refused_and_ipv4_captured(enrol: Enrol, node: pods.Node) -> None:
    pod = node.pod()
    switch(pod, off=True, where="lo")
    listeners = enrol(pod)
    assert pod.run(apps.dial, "fd99::1", 80, "brief") == apps.FORBIDDEN
    app = pod.start(apps.dial, NOWHERE, 80)
    apps.take(listeners[Role.OUTBOUND])
    assert app.receive()["said"] == b"engine"
