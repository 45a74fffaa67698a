"""What records of connections are told alike is one object, and goes with the decision."""

from __future__ import annotations

import gc
import weakref

from ambient.dataplane import abi, endings, wire
from ambient.dataplane.pods import LocalPods
from ambient.observe.records import Flow
from tests.dataplane.worlds import WEB_IP, a_world


def test_connections_of_a_decision_that_were_in_the_clear_share_a_flow_that_goes_with_it() -> None:
    world, pods = a_world(), LocalPods()
    decided = Flow(reporter="source", path="tunnel", verdict="allow")
    conn = abi.Conn(dialled=wire.addr(WEB_IP, 8080), target=0)
    first, second = (endings.flow_of(conn, decided, None, world, pods) for _ in range(2))
    assert first is second
    assert (first.path, first.security) == ("plaintext", "unknown")
    gone = weakref.ref(first)
    del first, second, decided
    gc.collect()
    assert gone() is None
