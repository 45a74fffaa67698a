"""Each piece of the capture taken away in turn, with nobody there to mend it: nothing passes in plaintext, either way.

A program has a spare, so that its removal changes nothing; what has none is missed by refusing.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ambient.capture import Capture, Role, abi
from ambient.model.mesh import CaptureSettings

from . import apps, pods
from .captured import DEVICE, connection, mark
from .conftest import Enrol

pytestmark = pytest.mark.kernel

PORT = 8080
CAPTURED = "engine"
UNANSWERED = "unanswered"  # by RST or by silence: IPv4 and IPv6 differ in it


@dataclass(frozen=True)
class Victim:
    """An enrolled pod, seen in one address family."""

    pod: pods.Pod
    bpffs: Path
    family: int

    def ip(self, command: str) -> None:
        self.pod.ip(f"-{self.family} {command}")

    def detach(self, link: str) -> None:
        pods.detach(self.bpffs, link)

    def unpin(self, pin: str) -> None:
        (self.bpffs / "ambient-v1" / pin).unlink()

    def delete(self, table: str) -> None:
        pods.delete_entry(self.bpffs, table, self.pod.netns.cookie)

    def delete_listener(self, role: Role) -> None:
        pods.delete_entry(self.bpffs, "listeners", bytes(abi.ListenerKey(self.pod.netns.cookie, role)))

    @property
    def lookup(self) -> str:
        return f"lookup/{self.pod.netns.cookie}"

    @property
    def spare(self) -> str:
        return f"lookup_spare/{self.pod.netns.cookie}"


OURS = "fwmark 0x53a/0xfff"
REMOVALS: dict[str, tuple[Callable[[Victim], object], str, str]] = {  # what an app in the pod sees, and a client of it
    "connect hook": (lambda v: v.detach(f"links/connect{v.family}"), CAPTURED, CAPTURED),
    "its spare": (lambda v: v.detach(f"links_spare/connect{v.family}"), CAPTURED, CAPTURED),
    "setsockopt hook": (lambda v: v.detach("links/setsockopt"), CAPTURED, CAPTURED),
    "its spare setsockopt": (lambda v: v.detach("links_spare/setsockopt"), CAPTURED, CAPTURED),
    "socket lookup": (lambda v: v.detach(v.lookup), CAPTURED, CAPTURED),
    "its spare lookup": (lambda v: v.detach(v.spare), CAPTURED, CAPTURED),
    "entry in pods": (lambda v: v.delete("pods"), apps.FORBIDDEN, UNANSWERED),
    "entry in enrolled": (lambda v: v.delete("enrolled"), CAPTURED, CAPTURED),
    "outbound listener's entry": (lambda v: v.delete_listener(Role.OUTBOUND), UNANSWERED, CAPTURED),
    "plaintext listener's entry": (lambda v: v.delete_listener(Role.INBOUND_PLAIN), CAPTURED, UNANSWERED),
    "tunnel listener's entry": (lambda v: v.delete_listener(Role.INBOUND_TUNNEL), CAPTURED, CAPTURED),
    "rule": (lambda v: v.ip(f"rule del {OURS} lookup 15008"), apps.FORBIDDEN, CAPTURED),
    "prohibiting rule": (lambda v: v.ip(f"rule del {OURS} prohibit"), CAPTURED, CAPTURED),
    "route": (lambda v: v.ip("route flush table 15008"), apps.FORBIDDEN, CAPTURED),
    "pin of pods": (lambda v: v.unpin("maps/pods"), CAPTURED, CAPTURED),
    "pin of enrolled": (lambda v: v.unpin("maps/enrolled"), CAPTURED, CAPTURED),
    "pin of listeners": (lambda v: v.unpin("maps/listeners"), CAPTURED, CAPTURED),
}


class Traffic:
    """Plaintext servers outside of the pod and in it, which must see nobody, and connections towards them."""

    def __init__(self, pod: pods.Pod, family: int) -> None:
        self.pod = pod
        self.outside, self.inside = (
            (str(pod.gateway4), str(pod.v4)) if family == 4 else (str(pod.gateway6), str(pod.v6))
        )
        self.servers = [pod.node.start(apps.serve, self.outside, PORT), pod.start(apps.serve, self.inside, PORT)]
        assert [server.receive() for server in self.servers] == ["listening"] * 2

    def out(self, listener: socket.socket) -> str:
        return _outcome(self.pod.start(apps.dial, self.outside, PORT, "brief"), listener)

    def into(self, listener: socket.socket) -> str:
        return _outcome(self.pod.node.start(apps.dial, self.inside, PORT, "brief"), listener)

    def in_plaintext(self) -> bool:
        return any(server.waiting() for server in self.servers)


def _outcome(client: pods.Remote, listener: socket.socket) -> str:
    """Who answered the client, or its error. The listener is served as by an engine."""
    ready, _, _ = select.select([client, listener], [], [], pods.DEADLINE)
    if listener in ready:
        apps.take(listener, CAPTURED.encode())
    seen = client.receive()
    client.finish()
    if isinstance(seen, str):
        return UNANSWERED if seen in (apps.REFUSED, "TimeoutError") else seen
    return str(seen["said"].decode())


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def victim(request: pytest.FixtureRequest, pod: pods.Pod, bpffs: Path) -> Victim:
    return Victim(pod, bpffs, request.param)


@pytest.fixture
def traffic(victim: Victim) -> Iterator[Traffic]:
    traffic = Traffic(victim.pod, victim.family)
    yield traffic
    for server in traffic.servers:
        server.finish()


@pytest.mark.parametrize(("remove", "out", "into"), REMOVALS.values(), ids=REMOVALS)
def test_without_one_piece_nothing_passes_in_plaintext_and_mending_restores_it(
    capture: Capture,
    enrol: Enrol,
    victim: Victim,
    traffic: Traffic,
    remove: Callable[[Victim], object],
    out: str,
    into: str,
) -> None:
    listeners = enrol(victim.pod)
    outbound, inbound = listeners[Role.OUTBOUND], listeners[Role.INBOUND_PLAIN]
    with connection(victim.pod, outbound, f"v{victim.family}") as before:
        remove(victim)
        assert (traffic.out(outbound), traffic.into(inbound)) == (out, into)
        assert not traffic.in_plaintext()
        assert [before.do("setsockopt", *option) for option in (DEVICE, mark(0))] == [apps.FORBIDDEN] * 2
        assert not before.leaks()
    assert len(capture.verify()) == 1
    assert (traffic.out(outbound), traffic.into(inbound)) == (CAPTURED, CAPTURED)
    assert capture.verify() == []


@pytest.mark.parametrize(
    "pin", ["links/connect{0.family}", "links_spare/connect{0.family}", "links/setsockopt", "{0.lookup}", "{0.spare}"]
)
def test_without_an_agent_a_pin_that_goes_takes_its_program_along_and_its_twin_carries_on(
    capture: Capture, enrol: Enrol, victim: Victim, traffic: Traffic, pin: str
) -> None:
    listeners = enrol(victim.pod)
    capture.close()
    victim.unpin(pin.format(victim))
    outbound, inbound = listeners[Role.OUTBOUND], listeners[Role.INBOUND_PLAIN]
    assert (traffic.out(outbound), traffic.into(inbound)) == (CAPTURED, CAPTURED)
    with connection(victim.pod, outbound, f"v{victim.family}") as captured:
        assert captured.do("setsockopt", *mark(0)) == apps.FORBIDDEN
    with_agent = Capture.open(victim.pod.node.cgroup, victim.bpffs)
    try:
        addresses = victim.pod.addresses
        with_agent.enrol(victim.pod.netns, addresses=addresses, settings=CaptureSettings(), listeners=listeners)
        assert _counted(with_agent, traffic, listeners) == {
            "connect_captured": 1,
            "lookup_outbound": 1,
            "lookup_plain": 1,
        }
    finally:
        with_agent.close()


@pytest.mark.parametrize(
    ("link", "counted"),
    [
        pytest.param(
            "links/connect{0.family}", {"connect_spare": 1, "lookup_outbound": 1, "lookup_plain": 1}, id="hook"
        ),
        pytest.param("{0.lookup}", {"connect_captured": 1, "lookup_spare": 2}, id="lookup"),
    ],
)
def test_a_spare_counts_only_what_it_stands_in_for(
    capture: Capture, enrol: Enrol, victim: Victim, traffic: Traffic, link: str, counted: dict[str, int]
) -> None:
    listeners = enrol(victim.pod)
    both = {"connect_captured": 1, "lookup_outbound": 1, "lookup_plain": 1}
    assert _counted(capture, traffic, listeners) == both
    victim.detach(link.format(victim))
    assert _counted(capture, traffic, listeners) == counted
    assert len(capture.verify()) == 1
    assert _counted(capture, traffic, listeners) == both  # so the spare is behind the first again


def test_the_spare_setsockopt_counts_only_what_it_stands_in_for(
    capture: Capture, enrol: Enrol, pod: pods.Pod, bpffs: Path
) -> None:
    with connection(pod, enrol(pod)[Role.OUTBOUND], "v4") as captured:
        for removed, counted in ((False, (1, 0)), (True, (1, 1)), (False, (2, 1))):
            if removed:
                pods.detach(bpffs, "links/setsockopt")
            assert captured.do("setsockopt", *mark(0)) == apps.FORBIDDEN
            counters = capture.counters()
            assert (counters["setsockopt_mark"], counters["setsockopt_spare"]) == counted
            capture.verify()


def _counted(capture: Capture, traffic: Traffic, listeners: dict[Role, socket.socket]) -> dict[str, int]:
    """What one captured connection each way adds to the counters."""
    before = capture.counters()
    assert traffic.out(listeners[Role.OUTBOUND]) == traffic.into(listeners[Role.INBOUND_PLAIN]) == CAPTURED
    after = capture.counters()
    # The client outside runs in no enrolled pod, and in no cgroup below the node's.
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def test_without_its_entry_a_pod_still_talks_to_itself_over_loopback_by_udp_and_not_by_tcp(
    capture: Capture, enrol: Enrol, pod: pods.Pod, bpffs: Path
) -> None:
    enrol(pod)
    pods.delete_entry(bpffs, "pods", pod.netns.cookie)
    pod.run(apps.send_datagram, "127.0.0.1", 9)
    assert pod.run(apps.dial, "127.0.0.1", PORT) == apps.REFUSED  # the lookup's refusal, not the hook's
    assert pod.run(apps.dial, "10.99.1.1", PORT) == apps.FORBIDDEN
    assert capture.counters()["connect_no_pod"] == 1


def test_while_a_lost_entry_is_mended_nothing_escapes(
    capture: Capture, enrol: Enrol, victim: Victim, traffic: Traffic
) -> None:
    enrol(victim.pod)
    knocking = victim.pod.start(apps.knock, traffic.outside, PORT)
    assert knocking.receive() == "knocking"
    for _ in range(10):
        victim.delete("pods")
        assert len(capture.verify()) == 1
    knocking.tell("stop")
    assert knocking.receive()
    assert not traffic.in_plaintext()


def test_enrolling_and_forgetting_refuse_no_connect(
    capture: Capture, enrol: Enrol, victim: Victim, traffic: Traffic
) -> None:
    knocking = victim.pod.start(apps.knock, traffic.outside, PORT)
    assert knocking.receive() == "knocking"
    for _ in range(5):
        enrol(victim.pod)
        capture.forget(victim.pod.netns.cookie)
    knocking.tell("stop")
    assert knocking.receive()
    assert capture.counters()["connect_no_pod"] == 0


def test_a_pod_that_lost_its_entry_is_known_to_the_next_agent_and_can_leave(
    capture: Capture, enrol: Enrol, victim: Victim, traffic: Traffic
) -> None:
    listeners = enrol(victim.pod)
    capture.close()
    victim.delete("pods")
    with_agent = Capture.open(victim.pod.node.cgroup, victim.bpffs)
    try:
        assert [(each.cookie, each.capturing) for each in with_agent.enrolled().values()] == [
            (victim.pod.netns.cookie, True)
        ]
        with_agent.leave(victim.pod.netns.cookie)
        assert traffic.out(listeners[Role.OUTBOUND]) == traffic.into(listeners[Role.INBOUND_PLAIN]) == "app"
        with_agent.forget(victim.pod.netns.cookie)
        assert with_agent.enrolled() == {}
    finally:
        with_agent.close()


def test_an_agent_that_starts_does_not_forget_a_pod_whose_lookup_was_detached(
    capture: Capture, enrol: Enrol, victim: Victim, traffic: Traffic
) -> None:
    listeners = enrol(victim.pod)
    capture.close()
    victim.detach(victim.lookup)
    Capture.open(victim.pod.node.cgroup, victim.bpffs).close()
    assert traffic.out(listeners[Role.OUTBOUND]) == traffic.into(listeners[Role.INBOUND_PLAIN]) == CAPTURED
