"""What is read at once from the kernel's records is what their mirrors say, field by field."""

from __future__ import annotations

import ctypes

from ambient.capture import abi, direct
from ambient.capture.abi import Kind
from ambient.model import samenode
from ambient.model.mesh import address

HERE, THERE, DIALLED = address("10.0.0.1"), address("fd00::2"), address("10.96.0.1")
KEY = abi.FlowKey(abi.Ip.of(HERE), abi.Ip.of(THERE), 40000, 8080)


def test_a_live_flow() -> None:
    row = abi.Flow(1, 2, 3, 4, 5, 4, abi.Ip.of(DIALLED), 80, Kind.DIRECT)
    assert direct._flow(bytes(KEY), bytes(row)) == direct.Flow(
        1, 2, 3, Kind.DIRECT, (HERE, 40000), (THERE, 8080), (DIALLED, 80), 4, 5, True, False
    )
    row = abi.Flow(1, 0, 3, 4, 0, 0, abi.Ip.of(DIALLED), 80, Kind.PASS)
    found = direct._flow(bytes(KEY), bytes(row))
    assert (found.server, found.established_ns, found.admitted) == (None, None, False)


def test_one_that_ended() -> None:
    row = abi.Ended(
        client=1, server=2, number=3, started=4, established=5, ended=6, bytes_out=7, bytes_in=8,
        flow=KEY, dialled=abi.Ip.of(DIALLED), dialled_port=80, error=104, kind=Kind.DIRECT, state=1, last=9,
    )  # fmt: skip
    found = direct.read_ended(bytes(row))
    assert found.flow == direct.Flow(
        1, 2, 3, Kind.DIRECT, (HERE, 40000), (THERE, 8080), (DIALLED, 80), 4, 5, True, False
    )
    assert (found.outcome, found.error) == (direct.Outcome.RESET_SERVER, 104)
    assert (found.ended_ns, found.bytes_out, found.bytes_in) == (6, 7, 8)


def test_those_that_ended_alike_share_what_they_have_in_common() -> None:
    def ended(**other: object) -> direct.Ended:
        fields = {"number": 3, "established": 5, "flow": KEY, "kind": Kind.DIRECT, "state": 1, "last": 9} | other
        return direct.read_ended(bytes(abi.Ended(**fields)))

    elsewhere = abi.FlowKey(abi.Ip.of(HERE), abi.Ip.of(THERE), 40001, 8080)
    first = ended(started=1)
    assert ended(started=2, flow=elsewhere, bytes_out=1).alike is first.alike
    for other in ({"number": 4}, {"established": 0}, {"error": 104}, {"state": 0}, {"last": 1}):
        assert ended(**other).alike is not first.alike


def test_nothing_is_left_out() -> None:
    for at_once, mirror in (
        (direct._FLOW_KEY, abi.FlowKey),
        (direct._FLOW, abi.Flow),
        (direct._ENDED, abi.Ended),
    ):
        assert at_once.size == ctypes.sizeof(mirror)
    assert direct._ALIKE.size == abi.Ended.zero.offset - 5 * 8 - 2


def test_the_model_knows_how_many_endpoints_a_verdict_holds() -> None:
    assert samenode.MOST_ENDPOINTS == abi.ENDPOINTS
