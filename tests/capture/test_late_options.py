"""What an application sets on its socket after it connected: a captured one stays captured, others may do as before."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ambient.capture import Capture, Role, abi
from ambient.model.mesh import CaptureSettings

from . import apps, pods
from .captured import DEVICE, FAMILIES, INDEX, PORT, WORD, Option, connection, mark
from .conftest import Enrol

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("option", "reason"),
    [
        pytest.param(DEVICE, "setsockopt_device", id="device"),
        pytest.param(INDEX, "setsockopt_device", id="device by index"),
        pytest.param(mark(0), "setsockopt_mark", id="no mark"),
        pytest.param(mark(abi.MARK ^ 1), "setsockopt_mark", id="another mark"),
    ],
)
def test_a_captured_socket_cannot_be_sent_another_way(
    capture: Capture, enrol: Enrol, pod: pods.Pod, family: str, option: Option, reason: str
) -> None:
    listener = enrol(pod)[Role.OUTBOUND]
    with connection(pod, listener, family) as captured:
        assert captured.do("setsockopt", *option) == apps.FORBIDDEN
        assert not captured.leaks()
        assert captured.heard() == WORD
    assert capture.counters()[reason] == 1


SOURCE_ROUTE = bytes([131, 7, 4, *socket.inet_aton("10.77.1.1"), 0])  # LSRR
SEGMENTS = bytes([0, 4, 4, 1, 1, 0, 0, 0]) + 2 * socket.inet_pton(socket.AF_INET6, "fd77:1::1")
PKTINFO4, PKTINFO6 = struct.pack("i4s4s", pods.ETH0, bytes(4), bytes(4)), struct.pack("16si", bytes(16), pods.ETH0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "option",
    [
        pytest.param((socket.SOL_SOCKET, socket.SO_DONTROUTE, 1), id="SO_DONTROUTE"),
        pytest.param((socket.SOL_SOCKET, 12, 6), id="SO_PRIORITY"),
        pytest.param((socket.SOL_IP, socket.IP_TOS, 0x10), id="IP_TOS"),
        pytest.param((socket.SOL_IP, socket.IP_OPTIONS, SOURCE_ROUTE), id="IP_OPTIONS with a source route"),
        pytest.param((socket.SOL_IP, 50, struct.pack("!I", pods.ETH0)), id="IP_UNICAST_IF"),
        pytest.param((socket.SOL_IP, 8, PKTINFO4), id="IP_PKTINFO"),
        pytest.param((socket.SOL_IP, 19, 1), id="IP_TRANSPARENT"),
        pytest.param((socket.IPPROTO_IPV6, 76, struct.pack("!I", pods.ETH0)), id="IPV6_UNICAST_IF"),
        pytest.param((socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, pods.ETH0), id="IPV6_MULTICAST_IF"),
        pytest.param((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, PKTINFO6), id="IPV6_PKTINFO"),
        pytest.param(
            (socket.IPPROTO_IPV6, 6, struct.pack("Qii20s4x", 36, socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, PKTINFO6)),
            id="IPV6_2292PKTOPTIONS",
        ),
        pytest.param((socket.IPPROTO_IPV6, socket.IPV6_RTHDR, SEGMENTS), id="IPV6_RTHDR with segments"),
        pytest.param((socket.IPPROTO_IPV6, 1, socket.AF_INET), id="IPV6_ADDRFORM"),
    ],
)
def test_no_other_option_sends_a_captured_socket_another_way(
    enrol: Enrol, pod: pods.Pod, family: str, option: Option
) -> None:
    listener = enrol(pod)[Role.OUTBOUND]
    with connection(pod, listener, family) as captured:
        captured.do("setsockopt", *option)  # some of them do not go with every family
        assert not captured.leaks()


@pytest.mark.parametrize(
    "ancillary",
    [
        pytest.param((socket.SOL_SOCKET, apps.SO_MARK, struct.pack("I", 0)), id="mark"),
        pytest.param((socket.SOL_IP, 8, PKTINFO4), id="IP_PKTINFO"),
        pytest.param((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, PKTINFO6), id="IPV6_PKTINFO"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_message_is_sent_another_way(enrol: Enrol, pod: pods.Pod, family: str, ancillary: tuple[int, ...]) -> None:
    listener = enrol(pod)[Role.OUTBOUND]
    with connection(pod, listener, family) as captured:
        assert not captured.leaks("sendmsg", [WORD], [ancillary])


@pytest.mark.parametrize("family", ["v4", "v6", "v4-mapped"])
@pytest.mark.parametrize("interface", ["eth0", "net1"])
def test_where_no_hook_refuses_it_a_device_leads_back_into_the_mesh_or_nowhere(
    enrol: Enrol, pod: pods.Pod, bpffs: Path, family: str, interface: str
) -> None:
    """Whoever is quicker than the hook, or came while it was detached."""
    pod.attach("net1")
    listener = enrol(pod)[Role.OUTBOUND]
    for place in ("links", "links_spare"):
        pods.detach(bpffs, f"{place}/setsockopt")
    with connection(pod, listener, family) as captured:
        assert captured.do("setsockopt", socket.SOL_SOCKET, apps.SO_BINDTODEVICE, interface.encode()) == ""
        assert not captured.leaks()
        if family != "v6":
            assert captured.heard() == WORD


def test_a_device_that_comes_later_is_noticed(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    enrol(pod)
    pod.attach("net1")
    assert capture.verify() == [f"pod {pod.netns.cookie}: its IPv4 route by net1 was gone"]
    assert capture.verify() == []


def test_a_device_that_goes_takes_its_route_along(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    pod.attach("net1")
    enrol(pod)
    assert "net1" in pod.ip("route show table 15008")
    pod.ip("link del net1")
    assert capture.verify() == []
    capture.forget(pod.netns.cookie)
    assert pod.ip("route show table all").count("15008") == 0


def test_a_socket_that_was_turned_from_ipv6_to_ipv4_stays_captured(enrol: Enrol, pod: pods.Pod) -> None:
    listener = enrol(pod)[Role.OUTBOUND]
    with connection(pod, listener, "v4-mapped") as captured:
        assert captured.do("setsockopt", socket.IPPROTO_IPV6, 1, socket.AF_INET) == ""
        assert captured.do("setsockopt", *DEVICE) == apps.FORBIDDEN
        assert not captured.leaks()


Left = Callable[[pods.Pod, Enrol], pods.Remote]


def _of_a_pod_outside(pod: pods.Pod, enrol: Enrol) -> pods.Remote:
    del enrol
    return pod.start(apps.move, str(pod.gateway4), PORT)


def _to_an_excluded_port(pod: pods.Pod, enrol: Enrol) -> pods.Remote:
    enrol(pod, CaptureSettings(exclude_outbound_ports=frozenset({PORT})))
    return pod.start(apps.move, str(pod.gateway4), PORT)


def _unconnected(pod: pods.Pod, enrol: Enrol) -> pods.Remote:
    enrol(pod)
    return pod.start(apps.move, str(pod.gateway4), PORT, "unconnected")


def _udp(pod: pods.Pod, enrol: Enrol) -> pods.Remote:
    enrol(pod)
    return pod.start(apps.move, str(pod.gateway4), PORT, "udp")


def _captured_once(pod: pods.Pod, enrol: Enrol) -> pods.Remote:
    enrol(pod)
    app = pod.start(apps.move, str(pod.gateway4), PORT)
    assert app.receive() == "ready"
    app.tell(("dissolve",))
    return app


@pytest.mark.parametrize("option", [DEVICE, INDEX, mark(0x77)], ids=["device", "device by index", "mark"])
@pytest.mark.parametrize("start", [_of_a_pod_outside, _to_an_excluded_port, _unconnected, _udp, _captured_once])
def test_a_socket_that_is_not_captured_may_do_as_before(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, start: Left, option: Option
) -> None:
    server = node.start(apps.serve, str(pod.gateway4), PORT)
    assert server.receive() == "listening"
    app = start(pod, enrol)
    assert app.receive() in ("ready", "")
    app.tell(("setsockopt", *option))
    assert app.receive() == ""
    counters = capture.counters()
    assert counters["setsockopt_device"] == counters["setsockopt_mark"] == 0
    server.finish()


@pytest.mark.parametrize("length", [5, 4096, 4097, 10_000])
def test_options_of_any_length_mean_what_they_did(enrol: Enrol, pod: pods.Pod, length: int) -> None:
    enrol(pod)
    assert pod.run(apps.choose_congestion, "reno", length) == "reno"
