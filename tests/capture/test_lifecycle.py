"""Enrolling, leaving, restarting, mending: what a pod's connections and the next agent see of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambient.capture import Capture, CaptureError, Role, abi, netns
from ambient.model.mesh import CaptureSettings
from tests import slowness

from . import apps, pods
from .conftest import Enrol

pytestmark = pytest.mark.kernel

LIMIT = slowness.seconds(0.2)  # , to enrol or to leave
NOWHERE = "10.99.1.1"


@pytest.fixture
def outside(node: pods.Node, pod: pods.Pod) -> Iterator[pods.Remote]:
    """An echo server beyond the pod."""
    server = node.start(apps.echo, str(pod.gateway4), 7)
    assert server.receive() == "listening"
    yield server
    server.finish()


def said(chat: pods.Remote, text: bytes) -> bytes:
    chat.tell(text)
    reply = chat.receive()
    assert isinstance(reply, bytes)
    return reply


def captured(pod: pods.Pod, listeners: dict[Role, apps.socket.socket]) -> bool:
    """Whether the pod's connects and what is sent to it come to these listeners."""
    for who, role, to in ((pod, Role.OUTBOUND, NOWHERE), (pod.node, Role.INBOUND_PLAIN, str(pod.v4))):
        app = who.start(apps.dial, to, 80)
        apps.take(listeners[role])
        assert app.receive()["said"] == b"engine"
        app.finish()
    return True


def test_enrolling_and_leaving_are_quick_and_leave_open_connections_alone(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, outside: pods.Remote
) -> None:
    del outside
    app = pod.start(apps.echo, "0.0.0.0", 8080)
    assert app.receive() == "listening"
    chats = [pod.start(apps.chat, str(pod.gateway4), 7), node.start(apps.chat, str(pod.v4), 8080)]
    assert [chat.receive() for chat in chats] == ["connected"] * 2

    before = time.perf_counter()
    listeners = enrol(pod)
    assert time.perf_counter() - before < LIMIT
    assert [said(chat, b"enrolled") for chat in chats] == [b"enrolled"] * 2
    assert captured(pod, dict(listeners))

    before = time.perf_counter()
    capture.leave(pod.netns.cookie)
    assert time.perf_counter() - before < LIMIT
    assert [said(chat, b"left") for chat in chats] == [b"left"] * 2
    capture.forget(pod.netns.cookie)
    assert [said(chat, b"forgotten") for chat in chats] == [b"forgotten"] * 2
    chats[1].finish()


def test_a_captured_connection_outlives_leaving(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    listeners = enrol(pod)
    chat = pod.start(apps.chat, NOWHERE, 80)
    assert chat.receive() == "connected"
    engine, _ = listeners[Role.OUTBOUND].accept()
    engine.setblocking(True)
    with engine:
        capture.leave(pod.netns.cookie)
        chat.tell(b"hello")
        assert engine.recv(100) == b"hello"
        engine.send(b"back")
        assert chat.receive() == b"back"


def test_after_leaving_both_directions_are_direct(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod
) -> None:
    enrol(pod)
    capture.leave(pod.netns.cookie)
    for server, client, to in ((node, pod, str(pod.gateway4)), (pod, node, str(pod.v4))):
        app = server.start(apps.serve, to, 8080)
        assert app.receive() == "listening"
        assert client.run(apps.dial, to, 8080)["said"] == b"app"
        app.finish()


def test_a_pod_that_left_can_come_back(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    enrol(pod)
    capture.leave(pod.netns.cookie)
    assert captured(pod, dict(enrol(pod)))


def test_enrolling_twice_changes_nothing_and_keeps_the_listeners(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    first, second = enrol(pod), enrol(pod)
    assert first == second
    assert capture.verify() == []
    assert pod.ip("rule").count("15008") == 1


def test_rule_and_table_are_all_that_changes_in_the_pod_and_they_go_again(
    capture: Capture, enrol: Enrol, pod: pods.Pod
) -> None:
    pod.ip("rule add fwmark 0x1000/0xf000 lookup 77")
    # The kernel's own, when the link has come up: its local address, and the route to such.
    settled = lambda: "fe80::/64" in pod.ip("-6 route") and "tentative" not in pod.ip("-6 addr")  # noqa: E731
    pods.eventually(settled)
    shown = [f"-o {family} {what}" for family in ("-4", "-6") for what in ("rule", "route show table all", "addr")]
    before = [pod.ip(each) for each in shown]
    enrol(pod)
    assert "1508:\tfrom all fwmark 0x53a/0xfff lookup 15008" in pod.ip("rule")
    capture.forget(pod.netns.cookie)
    assert [pod.ip(each) for each in shown] == before


def test_a_pod_that_cannot_be_enrolled_is_left_as_it_was(capture: Capture, pod: pods.Pod) -> None:
    before = pod.ip("rule")
    with pytest.raises(CaptureError, match=r"does not have the address 10.1.2.3"):
        capture.enrol(pod.netns, addresses=(pods.ip_address("10.1.2.3"),), settings=CaptureSettings())
    assert capture.enrolled() == {}
    assert pod.ip("rule") == before


def test_a_change_that_cannot_be_made_leaves_the_pod_enrolled_as_it_was(
    capture: Capture, enrol: Enrol, pod: pods.Pod
) -> None:
    listeners = enrol(pod)
    with pytest.raises(CaptureError):
        capture.enrol(pod.netns, addresses=(pods.ip_address("10.1.2.3"),), settings=CaptureSettings())
    assert capture.verify() == []
    assert capture.enrolled()[pod.netns.cookie].addresses == pod.addresses
    assert captured(pod, dict(listeners))


def test_the_next_agent_adopts_what_it_finds_without_a_gap(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, bpffs: Path
) -> None:
    listeners = dict(enrol(pod))
    capture.close()
    assert captured(pod, listeners)  # nobody is there, and it goes on
    second = Capture.open(node.cgroup, bpffs)
    try:
        assert captured(pod, listeners)
        found = second.enrolled()[pod.netns.cookie]
        assert (found.capturing, found.addresses) == (True, pod.addresses)
        again = second.enrol(pod.netns, addresses=pod.addresses, settings=CaptureSettings(), listeners=listeners)
        assert again == listeners
        assert second.verify() == []
        second.forget(pod.netns.cookie)
    finally:
        second.close()


def test_the_next_agent_can_bring_listeners_of_its_own(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, bpffs: Path
) -> None:
    enrol(pod)
    capture.close()
    second = Capture.open(node.cgroup, bpffs)
    listeners = second.enrol(pod.netns, addresses=pod.addresses, settings=CaptureSettings())
    assert captured(pod, dict(listeners))
    second.close()
    for each in listeners.values():
        each.close()


def test_the_next_agent_can_forget_a_pod_it_never_saw(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, bpffs: Path
) -> None:
    enrol(pod)
    capture.close()
    second = Capture.open(node.cgroup, bpffs)
    second.forget(pod.netns.cookie)
    assert second.enrolled() == {}
    assert "15008" not in pod.ip("rule")
    second.close()


def test_a_pod_that_died_while_no_agent_ran_is_forgotten(
    capture: Capture, enrol: Enrol, node: pods.Node, bpffs: Path
) -> None:
    pod = node.pod()
    settings = CaptureSettings(exclude_outbound_ports=frozenset({1}))
    for each in enrol(pod, settings).values():
        each.close()
    capture.close()
    node.pods.remove(pod)
    pod.close()
    second = pods.eventually(lambda: _open_without_pods(node, bpffs))
    assert list((bpffs / "ambient-v1" / "lookup").iterdir()) == []
    second.close()


def _open_without_pods(node: pods.Node, bpffs: Path) -> Capture | None:
    """The kernel takes a namespace down some time after its last user."""
    capture = Capture.open(node.cgroup, bpffs)
    if capture.enrolled():
        capture.close()
        return None
    return capture


def test_a_second_agent_on_the_same_pins_is_refused(capture: Capture, node: pods.Node, bpffs: Path) -> None:
    del capture
    with pytest.raises(CaptureError, match="another agent uses"):
        Capture.open(node.cgroup, bpffs)


def test_another_versions_pins_are_refused_and_left_alone(node: pods.Node, bpffs: Path) -> None:
    (bpffs / "ambient-v99").mkdir()
    with pytest.raises(CaptureError, match="ambient-v99 was left by another version"):
        Capture.open(node.cgroup, bpffs)
    assert [each.name for each in bpffs.glob("ambient-*")] == ["ambient-v99"]


def test_a_directory_that_is_no_bpf_file_system_is_refused(node: pods.Node, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="is not a BPF file system: mount -t bpf"):
        Capture.open(node.cgroup, tmp_path)


def test_a_failed_start_leaves_nothing(node: pods.Node, bpffs: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptureError):
        Capture.open(tmp_path, bpffs)  # not a cgroup: found out after loading
    assert list(bpffs.glob("ambient-*")) == []
    Capture.open(node.cgroup, bpffs).close()


def test_uninstall_leaves_nothing(capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod, bpffs: Path) -> None:
    enrol(pod)
    capture.close()
    Capture.open(node.cgroup, bpffs).uninstall()  # also what an earlier agent enrolled
    assert list(bpffs.glob("ambient-*")) == []
    assert "15008" not in pod.ip("rule") + pod.ip("-6 rule") + pod.ip("route show table all")
    server = node.start(apps.serve, str(pod.gateway4), 8080)
    assert server.receive() == "listening"
    assert pod.run(apps.dial, str(pod.gateway4), 8080)["said"] == b"app"
    server.finish()


def _enemies(pod: pods.Pod, bpffs: Path) -> dict[str, Callable[[], object]]:
    """Ways to take a piece away behind the agent's back."""
    pins, cookie = bpffs / "ambient-v1", pod.netns.cookie
    listener = bytes(abi.ListenerKey(cookie, Role.OUTBOUND))
    return {
        "the pin maps/pods was gone": (pins / "maps/pods").unlink,
        "the pin links/connect4 was gone": (pins / "links/connect4").unlink,
        "the pin lookup/": (pins / f"lookup/{cookie}").unlink,
        "the hook connect4 was detached": lambda: pods.detach(bpffs, "links/connect4"),
        "the hook sock_ops was detached": lambda: pods.detach(bpffs, "links/sock_ops"),
        "the pin maps/flows was gone": (pins / "maps/flows").unlink,
        "the hook setsockopt was detached": lambda: pods.detach(bpffs, "links/setsockopt"),
        "the hook getpeername6 was detached": lambda: pods.detach(bpffs, "links/getpeername6"),
        "its socket lookup was not attached": lambda: pods.detach(bpffs, f"lookup/{cookie}"),
        "its entry was gone": lambda: pods.delete_entry(bpffs, "pods", cookie),
        "its outbound listener was not in place": lambda: pods.delete_entry(bpffs, "listeners", listener),
        "its IPv4 rule was gone": lambda: pod.ip("rule del fwmark 0x53a/0xfff lookup 15008"),
        "its IPv6 rule was gone": lambda: pod.ip("-6 rule del fwmark 0x53a/0xfff lookup 15008"),
        "its IPv4 route by lo, eth0 was gone": lambda: pod.ip("route flush table 15008"),
        "its IPv6 route by lo was gone": lambda: pod.ip("-6 route flush table 15008"),
    }


def test_each_piece_that_is_removed_is_noticed_and_mended(
    capture: Capture, enrol: Enrol, pod: pods.Pod, bpffs: Path
) -> None:
    listeners = enrol(pod)
    assert capture.verify() == []
    for text, harm in _enemies(pod, bpffs).items():
        harm()
        mended = capture.verify()
        assert len(mended) == 1, (text, mended)
        assert text in mended[0]
        assert capture.verify() == []
        assert captured(pod, dict(listeners)), text


def test_a_closed_listener_cannot_be_mended_and_is_named(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    enrol(pod)[Role.OUTBOUND].close()
    with pytest.raises(CaptureError, match="a listening socket of the pod was closed: enrol it again"):
        capture.verify()
    assert captured(pod, dict(enrol(pod)))


def test_the_engines_cgroup_can_be_nothing_that_holds_pods(
    capture: Capture, enrol: Enrol, node: pods.Node, pod: pods.Pod
) -> None:
    enrol(pod)
    app = pod.start(apps.serve, "127.0.0.1", 8080)
    assert app.receive() == "listening"
    for cgroup in (node.cgroup, node.cgroup.parent, pod.cgroup):
        with pytest.raises(CaptureError, match="cannot be exempt"):
            capture.exempt(cgroup)


def test_finding_a_namespace_that_is_gone_says_so(capture: Capture) -> None:
    del capture
    with pytest.raises(CaptureError, match="is the pod gone"):
        netns.open("/run/netns/ambcap-none")


def test_a_namespace_is_reached_by_a_socket_that_was_made_in_it(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    del capture
    space = netns.of_socket(enrol(pod)[Role.OUTBOUND])
    assert (space.cookie, space.inode) == (pod.netns.cookie, pod.netns.inode)
    space.close()


def test_a_descriptor_that_is_no_namespace_is_refused_and_closed() -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(CaptureError, match="cannot enter a network namespace"):
        netns.of_descriptor(descriptor, "/dev/null")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
