"""Only what this node's connect hook has announced gets in to the application, and only while it is still allowed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ambient.capture import Role, direct
from ambient.capture.abi import Kind

from .. import apps, pods
from ..conftest import Enrol
from ..test_attack import send
from .conftest import PORT, Pair
from .talk import CLOSE, WAIT, answer, hang_up, talk

pytestmark = pytest.mark.kernel


@pytest.fixture
def app(pair: Pair) -> Iterator[pods.Remote]:
    """The server's application: who must hear of nobody who is not let in."""
    server = pair.serve()
    yield server
    server.finish()


def frame(pair: Pair, mac: str, source: tuple[str, int], flags: str = "S") -> bytes:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    ip: Any = IPv6 if ":" in source[0] else IP
    to = str(pair.at[0])
    segment = TCP(sport=source[1], dport=PORT, flags=flags, seq=1, ack=1 if "A" in flags else 0)
    return bytes(Ether(dst=mac) / ip(src=source[0], dst=to) / segment)


def fence(pair: Pair) -> None:
    """What came before it has been dealt with."""
    client = pair.client.node.start(apps.dial, str(pair.server.v4), 1, "brief")
    taken, _ = pods.eventually(lambda: _accepted(pair.listeners["server"][Role.INBOUND_PLAIN]))
    taken.close()
    client.finish()


def _accepted(listener: socket.socket) -> Any:
    try:
        return listener.accept()
    except BlockingIOError:
        return None


@pytest.mark.parametrize("flags", ["S", "A", "PA"])
def test_a_forged_packet_of_a_client_that_announced_nothing_gets_nowhere(
    pair: Pair, app: pods.Remote, flags: str
) -> None:
    """It has a verdict, but did not connect."""
    pair.allow(pair.at)
    source = str(pair.client.v6 if pair.family == "v6" else pair.client.v4)
    pair.client.node.run(send, pair.server.link, frame(pair, pair.server.mac(), (source, 4242), flags))
    fence(pair)
    assert pair.counted("lookup_direct") == [0]
    assert not app.waiting()


def test_a_neighbouring_4_tuple_of_an_announced_one_gets_nowhere(pair: Pair) -> None:
    pair.allow(pair.at)
    server = pair.server.start(answer, str(pair.at[0]), PORT, 5, 3, WAIT)
    assert server.receive() == "listening"
    client = pair.client.start(talk, *pair.spelled(pair.at), 5, 3, CLOSE)
    assert client.receive() == "talked"
    (flow,) = pair.capture.direct.flows()
    ip, port = str(flow.source[0]), flow.source[1]
    other = ip.removesuffix("2") + "3"
    for source in ((ip, port - 1), (ip, port + 1), (other, port)):
        pair.client.node.run(send, pair.server.link, frame(pair, pair.server.mac(), source))
    fence(pair)
    assert pair.counted("lookup_direct") == [1]
    client.finish()


def test_a_4_tuple_that_was_announced_once_gets_nowhere_afterwards(pair: Pair, app: pods.Remote) -> None:
    pair.allow(pair.at)
    assert pair.dial(pair.at)["said"] == b"app"
    app.receive()
    (record,) = pair.ended()
    replayed = frame(pair, pair.server.mac(), (str(record.flow.source[0]), record.flow.source[1]))
    pair.client.node.run(send, pair.server.link, replayed)
    fence(pair)
    assert pair.counted("lookup_direct") == [1]
    assert not app.waiting()


def test_a_live_connection_survives_a_forged_syn_of_its_own(pair: Pair) -> None:
    pair.allow(pair.at)
    server = pair.server.start(apps.echo, str(pair.at[0]), PORT)
    assert server.receive() == "listening"
    chat = pair.client.start(apps.chat, str(pair.at[0]), PORT)
    assert chat.receive() == "connected"
    (flow,) = pair.capture.direct.flows()
    forged = frame(pair, pair.server.mac(), (str(flow.source[0]), flow.source[1]))
    pair.client.node.run(send, pair.server.link, forged)
    for word in (b"one", b"two"):
        chat.tell(word)
        assert chat.receive() == word


def test_a_pod_that_takes_the_servers_address_takes_nobodys_admission_back(
    pair: Pair, enrol: Enrol, node: pods.Node
) -> None:
    """It has the client's SYN come to itself, as whoever may configure addresses can."""
    pair.allow(pair.at)
    server = pair.server.start(apps.echo, str(pair.at[0]), PORT)
    assert server.receive() == "listening"
    chat = pair.client.start(apps.chat, str(pair.at[0]), PORT)
    assert chat.receive() == "connected"
    (flow,) = pair.capture.direct.flows()
    thief = node.pod()
    listeners = enrol(thief)
    assert flow.admitted
    thief.ip(f"addr add {pair.at[0]}/128 dev lo nodad" if pair.family == "v6" else f"addr add {pair.at[0]}/32 dev lo")
    thief.node.run(send, thief.link, frame(pair, thief.mac(), (str(flow.source[0]), flow.source[1])))
    pods.eventually(lambda: pair.counted("lookup_plain") == [1])
    assert pair.capture.direct.flows() == [flow]
    chat.tell(b"one")
    assert chat.receive() == b"one"
    del listeners


def test_who_dials_past_the_hooks_is_a_stranger(pair: Pair, app: pods.Remote) -> None:
    """A process that entered the client's namespace from a cgroup outside of the node's: no hook saw it connect."""
    pair.allow(pair.at)
    outside = pods.cgroups.root()
    listener = pair.listeners["server"][Role.INBOUND_PLAIN]
    client = pair.client.start_in(outside, apps.dial, *pair.spelled(pair.at))
    assert apps.take(listener)[1] == (str(pair.at[0]), PORT)
    assert client.receive()["said"] == b"engine"
    client.finish()
    assert pair.counted("lookup_direct", "lookup_plain") == [0, 1]
    assert not app.waiting()


@pytest.mark.parametrize("how", ["deleted", "put again", "refused", "moved to another pod"])
def test_a_verdict_that_changed_between_the_connect_and_the_syn_lets_nothing_in(
    pair: Pair, app: pods.Remote, how: str
) -> None:
    pair.allow(pair.vip)
    with pods.unforwarded(pair.client.node):
        client = pair.client.start(apps.dial, *pair.spelled(pair.vip))
        (flow,) = pods.eventually(pair.capture.direct.flows)
        assert not flow.admitted
        match how:
            case "deleted":
                pair.delete(pair.vip)
            case "put again":
                pair.allow(pair.vip)
            case "refused":
                pair.rule(Kind.REFUSE, pair.vip)
            case "moved to another pod":
                pair.allow(pair.vip, pair.endpoint(server=pair.client.netns.cookie))
    assert client.receive() in ("ConnectionResetError", "TimeoutError", apps.REFUSED)
    (record,) = pair.ended()
    assert (record.flow.admitted, record.bytes_out) == (False, 0)
    assert pair.counted("lookup_direct") == [0]
    assert not app.waiting()
    client.finish()


def test_a_syn_that_comes_again_is_let_in_again(pair: Pair, app: pods.Remote) -> None:
    """A full backlog drops it the first time."""
    pair.allow(pair.vip)
    with pods.unforwarded(pair.client.node):
        client = pair.client.start(apps.dial, *pair.spelled(pair.vip))
        (flow,) = pods.eventually(pair.capture.direct.flows)
        syn = frame(pair, pair.server.mac(), (str(flow.source[0]), flow.source[1]))
        pair.client.node.run(send, pair.server.link, syn)
        pods.eventually(lambda: pair.counted("lookup_direct")[0])
    assert client.receive()["said"] == b"app"
    app.receive()
    client.finish()


def test_a_server_under_a_flood_that_answers_with_cookies_lets_it_in(pair: Pair, app: pods.Remote) -> None:
    """Nothing is kept of the SYN: the handshake's last packet looks for a listener again."""
    pods.sh(f"ip netns exec {pair.server.name} sysctl -qw net.ipv4.tcp_syncookies=2")
    pair.allow(pair.vip)
    assert pair.dial(pair.vip)["said"] == b"app"
    app.receive()
    (record,) = pair.ended()
    assert (record.flow.admitted, record.bytes_in) == (True, 3)
    assert pair.counted("lookup_direct")[0] >= 2  # more when the SYN came again


def test_a_server_without_its_entry_lets_nothing_in(pair: Pair, app: pods.Remote, bpffs: Any) -> None:
    pair.allow(pair.vip)
    with pods.unforwarded(pair.client.node):
        client = pair.client.start(apps.dial, *pair.spelled(pair.vip), "brief")
        pods.eventually(pair.capture.direct.flows)
        pods.delete_entry(bpffs, "pods", pair.server.netns.cookie)
    assert client.receive() in (apps.REFUSED, "TimeoutError")
    assert not app.waiting()
    client.finish()


def test_under_a_storm_of_connects_nothing_lives_on_by_a_verdict_that_was_taken_back(pair: Pair) -> None:
    server = pair.server.start(hang_up, str(pair.at[0]), PORT)
    assert server.receive() == "listening"
    pair.allow(pair.vip)
    storms = [pair.client.start(apps.knock, *pair.spelled(pair.vip)) for _ in range(4)]
    assert [storm.receive() for storm in storms] == ["knocking"] * 4
    ended: list[direct.Ended] = []
    for _ in range(50):
        number = pair.allow(pair.vip)
        pods.eventually(lambda: pair.capture.direct.read(ended.append))
        pair.delete(pair.vip)
        pair.capture.direct.destroy(pair.capture.direct.flows())
        assert [flow for flow in pair.capture.direct.flows() if flow.admitted or flow.number != number] == []
        while not apps.idle(pair.listeners["server"][Role.INBOUND_PLAIN]):
            pair.listeners["server"][Role.INBOUND_PLAIN].accept()[0].close()
        while not apps.idle(pair.listeners["client"][Role.OUTBOUND]):
            pair.listeners["client"][Role.OUTBOUND].accept()[0].close()
    for storm in storms:
        storm.tell("stop")
        assert storm.receive()
    pods.eventually(lambda: not pair.capture.direct.flows())
    while pair.capture.direct.read(ended.append):
        pass
    announced = pair.counted("connect_direct")[0] - pair.counted("connect_diverted")[0]
    assert len(ended) == announced
    assert pair.counted("flow_untold") == [0]
