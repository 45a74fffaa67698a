"""What two applications see of a connection that goes from one to the other directly, and what the agent is told of it."""

from __future__ import annotations

import pytest

from ambient.capture import direct
from ambient.capture.abi import Kind

from .. import pods
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
