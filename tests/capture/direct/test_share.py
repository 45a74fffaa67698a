"""No pod has all places among the direct connections, and whoever removes what, a place that is free is found free."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest

from ambient.capture import abi, direct

from .. import pods
from ..pods import tell, told
from .conftest import Pair

pytestmark = pytest.mark.kernel

MANY, FEW = 6000, 300


def hold(channel: socket.socket, to: str, port: int, count: int) -> str:
    """Begin so many connections, waiting for none; end them when told to."""
    files = count + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.setblocking(False)
        sock.connect_ex((to, port))
    tell(channel, "begun")
    told(channel)
    for sock in socks:
        sock.close()
    return "ended"


def begin(pair: Pair, count: int) -> pods.Remote:
    app = pair.client.start(hold, *pair.spelled(pair.vip), count)
    assert app.receive() == "begun"
    return app


def end(app: pods.Remote) -> None:
    app.tell(None)
    assert app.receive() == "ended"


def of(pair: Pair) -> list[direct.Flow]:
    return [flow for flow in pair.capture.direct.flows() if flow.client == pair.client.netns.cookie]


def other_way(pair: Pair) -> Pair:
    back = Pair(pair.capture, pair.server, pair.client, pair.family)
    for each in (pair, back):
        each.allow(each.vip)
    return back


def test_a_pod_with_very_many_leaves_the_others_theirs(pair4: Pair) -> None:
    """Nothing is answered: each is alive for as long as its application wants."""
    back = other_way(pair4)
    with pods.unforwarded(pair4.client.node):
        many = begin(pair4, MANY)
        assert 0.8 * abi.SEATS < len(of(pair4)) <= abi.SEATS
        assert pair4.counted("connect_diverted") == [MANY - len(of(pair4))], "the rest is the engine's"
        few = begin(back, FEW)
        assert len(of(back)) == FEW
        end(few)
        end(many)
    assert pair4.capture.direct.flows() == []


def test_a_place_is_free_again_when_its_connection_is_over(pair4: Pair) -> None:
    pair4.allow(pair4.vip)
    with pods.unforwarded(pair4.client.node):
        for _ in range(3):
            app = begin(pair4, MANY)
            assert 0.8 * abi.SEATS < len(of(pair4)) <= abi.SEATS
            end(app)
        app = begin(pair4, FEW)
        assert len(of(pair4)) == FEW
        end(app)


def test_a_place_is_free_when_its_connection_is_gone_without_a_word(pair4: Pair, bpffs: Path) -> None:
    """As when somebody deletes entries, or programs that know of no places did their work meanwhile."""
    pair4.allow(pair4.vip)
    with pods.unforwarded(pair4.client.node):
        many = begin(pair4, MANY)
        for flow in of(pair4):
            ends = abi.Ip.of(flow.source[0]), abi.Ip.of(flow.destination[0])
            pods.delete_entry(bpffs, "flows", bytes(abi.FlowKey(*ends, flow.source[1], flow.destination[1])))
        few = begin(pair4, FEW)
        assert len(of(pair4)) == FEW
        end(few)
        end(many)
        few = begin(pair4, FEW)
        assert len(of(pair4)) == FEW, "and those whose places were taken meanwhile did no harm when they ended"
        end(few)
