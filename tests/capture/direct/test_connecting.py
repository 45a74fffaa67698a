"""What two applications see of a connection that goes from one to the other directly, and what the agent is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.capture import Role, direct
from ambient.capture.abi import Kind

from .. import apps, pods
from .conftest import Pair

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("how", ["", "nonblocking", "source"])
@pytest.mark.parametrize("to", ["vip", "address"])
def test_a_connection_goes_directly_and_neither_end_can_tell(
    pair: Pair, served: pods.Remote, to: str, how: str
) -> None:
    dialled = pair.vip if to == "vip" else pair.at
    number = pair.allow(dialled)
    own = pair.spelled((pair.client.v6 if pair.family == "v6" else pair.client.v4, 0))[0]
    seen = pair.dial(dialled, f"source={own}" if how == "source" else how)
    assert seen == {"peer": pair.spelled(dialled), "own": own, "said": b"app"}
    accepted, named = served.receive()
    assert accepted == named
    (record,) = pair.ended()
    source = (pair.client.v6 if pair.family == "v6" else pair.client.v4), accepted[1]
    assert accepted[0] == str(source[0])
    flow = record.flow
    assert (flow.client, flow.server) == (pair.client.netns.cookie, pair.server.netns.cookie)
    assert (flow.number, flow.kind) == (number, Kind.DIRECT)
    assert (flow.source, flow.destination, flow.dialled) == (source, pair.at, dialled)
    assert (flow.admitted, flow.sealed) == (True, False)
    assert (record.bytes_out, record.bytes_in, record.error) == (0, 3, 0)
    assert record.outcome is direct.Outcome.CLOSED
    assert flow.established_ns
    assert flow.started_ns < flow.established_ns < record.ended_ns
    assert pair.counted("connect_direct", "lookup_direct", "connect_captured", "connect_spare") == [1, 1, 0, 0]
    assert pair.capture.direct.flows() == []


def test_without_a_verdict_the_engine_gets_it(pair: Pair, served: pods.Remote) -> None:
    del served
    pair.allow(pair.at)
    assert pair.delete(pair.at)
    assert not pair.delete(pair.at)
    assert _through_engine(pair, pair.at)


@pytest.mark.parametrize("how", ["mptcp", "fastopen", "fastopen-connect"])
def test_what_is_no_plain_connect_goes_through_the_engine(pair4: Pair, how: str) -> None:
    """Of MPTCP each subflow is a socket of its own; fast open may send data before it is known who answers."""
    pair4.client.run(_allow_fast_open)
    pair4.allow(pair4.at)
    assert _through_engine(pair4, pair4.at, how)
    assert pair4.counted("connect_direct", "connect_diverted") == ([0, 0] if how == "mptcp" else [1, 1])
    assert pair4.capture.direct.flows() == pair4.ended(0)


def test_a_source_that_is_not_the_pods_own_address_is_the_engines_to_judge(pair: Pair) -> None:
    another = {"v6": "fd77:1::99"}.get(pair.family, "10.77.1.99")
    pair.client.ip(f"addr add {another} dev eth0 nodad" if pair.family == "v6" else f"addr add {another}/24 dev eth0")
    pair.allow(pair.at)
    source = f"::ffff:{another}" if pair.family == "v4-mapped" else another
    assert _through_engine(pair, pair.at, f"source={source}")
    assert pair.counted("connect_diverted") == [1]
    assert pair.capture.direct.flows() == pair.ended(0)


@pytest.mark.parametrize(
    ("changed", "counted"),
    [
        pytest.param({"server": None}, "connect_captured", id="not on this node"),
        pytest.param({"weight": 0}, "connect_captured", id="of no weight"),
        pytest.param({"server": 1}, "connect_no_server", id="a pod that is gone"),
        pytest.param({"server": "client"}, "connect_no_server", id="the client itself"),
        pytest.param({"ip": "other"}, "connect_no_server", id="of the other family"),
    ],
)
def test_an_endpoint_that_cannot_be_reached_directly_is_the_engines(
    pair: Pair, changed: dict[str, object], counted: str
) -> None:
    if changed.get("server") == "client":
        changed = {"server": pair.client.netns.cookie}
    if changed.get("ip") == "other":
        changed = {"ip": pair.server.v4 if pair.family == "v6" else pair.server.v6}
    pair.allow(pair.vip, pair.endpoint(**changed))
    assert _through_engine(pair, pair.vip)
    assert pair.counted(counted, "connect_direct") == [1, 0]


def test_a_server_that_leaves_the_mesh_is_reached_through_the_engine(pair: Pair) -> None:
    pair.allow(pair.vip)
    pair.capture.leave(pair.server.netns.cookie)
    assert _through_engine(pair, pair.vip)


def test_what_the_mesh_does_not_know_is_left_alone_and_told(pair: Pair, node: pods.Node) -> None:
    outside = (pair.client.gateway6 if pair.family == "v6" else pair.client.gateway4), 8080
    number = pair.rule(Kind.PASS, outside)
    server = node.start(apps.serve, str(outside[0]), 8080)
    assert server.receive() == "listening"
    assert pair.dial(outside)["said"] == b"app"
    (record,) = pair.ended()
    assert (record.flow.kind, record.flow.number, record.flow.server) == (Kind.PASS, number, None)
    assert record.flow.destination == record.flow.dialled == outside
    assert (record.bytes_in, record.outcome) == (3, direct.Outcome.CLOSED)
    assert not record.flow.sealed
    assert pair.counted("connect_passed", "connect_captured") == [1, 0]
    server.finish()


def test_what_is_refused_is_refused_at_connect_and_told_once(pair: Pair) -> None:
    number = pair.rule(Kind.REFUSE, pair.vip)
    assert pair.dial(pair.vip) == apps.FORBIDDEN
    (record,) = pair.ended()
    assert (record.outcome, record.flow.number, record.flow.dialled) == (direct.Outcome.REFUSED, number, pair.vip)
    assert record.flow.client == pair.client.netns.cookie
    assert record.flow.established_ns is None
    assert pair.counted("connect_denied") == [1]


def test_a_verdict_is_for_one_pod_one_address_and_one_port(pair: Pair) -> None:
    pair.allow(pair.vip)
    ip, port = pair.vip
    assert _through_engine(pair, (ip, port + 1))
    assert _through_engine(pair, (ip + 1, port))
    app = pair.server.start(apps.dial, *pair.spelled(pair.vip))
    apps.take(pair.listeners["server"][Role.OUTBOUND])
    assert app.receive()["said"] == b"engine"


def _through_engine(pair: Pair, dialled: direct.Place, how: str = "") -> bool:
    """Whether the connection comes to the outbound listener, as what was dialled."""
    app = pair.client.start(apps.dial, *pair.spelled(dialled), how)
    taken = apps.take(pair.listeners["client"][Role.OUTBOUND])
    seen = app.receive()
    app.finish()
    return (seen["said"], seen["peer"], taken[1]) == (
        b"engine",
        pair.spelled(dialled),
        (str(dialled[0]), dialled[1]),
    )


def _allow_fast_open(channel: object) -> None:
    del channel
    Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("5")  # data in a SYN, without a cookie
