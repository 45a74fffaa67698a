"""The truth tables of the direct path: where a connect goes, by which weight, and what a server lets in."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest

from ambient.capture import abi
from ambient.capture.abi import Kind

from . import native

IPPROTO_MPTCP = 262
CAPTURED = ("mark", "connect_captured")
DIRECT, PASSED = ("direct", "connect_direct"), ("leave", "connect_passed")
EXPIRED = ("mark", "connect_expired")
DENIED, NO_ROOM = ("refuse", "connect_denied"), ("mark", "connect_no_room")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({}, DIRECT, id="direct"),
        pytest.param({"kind": 0}, CAPTURED, id="no verdict"),
        pytest.param({"kind": 99}, CAPTURED, id="a verdict of a later version"),
        pytest.param({"remote": 1}, CAPTURED, id="an endpoint elsewhere"),
        pytest.param({"remote": 1, "room": 0}, CAPTURED, id="an endpoint elsewhere, no room"),
        pytest.param({"reachable": 0}, ("mark", "connect_no_server"), id="its pod is not captured"),
        pytest.param({"room": 0}, NO_ROOM, id="no room for its record"),
        pytest.param({"kind": Kind.PASS, "remote": 1, "reachable": 0}, PASSED, id="unknown to the mesh"),
        pytest.param({"kind": Kind.PASS, "room": 0}, NO_ROOM, id="unknown to the mesh, no room"),
        pytest.param({"kind": Kind.REFUSE}, DENIED, id="refused"),
        pytest.param({"kind": Kind.REFUSE, "room": 0, "reachable": 0}, DENIED, id="refused, no room"),
        *(
            pytest.param({"expired": 1, "kind": kind, "room": 0}, EXPIRED, id=f"long without an agent, {kind.name}")
            for kind in Kind
        ),
        pytest.param({"protocol": IPPROTO_MPTCP}, CAPTURED, id="mptcp"),
        pytest.param({"protocol": IPPROTO_MPTCP, "kind": Kind.REFUSE}, CAPTURED, id="mptcp, refused by the engine"),
        pytest.param({"protocol": IPPROTO_MPTCP, "kind": Kind.PASS}, CAPTURED, id="mptcp, unknown to the mesh"),
    ],
)
def test_where_a_connect_goes_is_decided_by_its_facts(facts: dict[str, int], expected: tuple[str, str]) -> None:
    given = native.DirectFacts(socket.IPPROTO_TCP, Kind.DIRECT, 0, 1, 0, 1)
    for name, value in facts.items():
        setattr(given, name, value)
    assert native.decide_direct(given) == expected


def weighing(*weights: int) -> abi.Verdict:
    verdict = abi.Verdict(7, Kind.DIRECT, len(weights), sum(weights))
    for at, weight in enumerate(weights):
        verdict.endpoint[at].weight = weight
    return verdict


@pytest.mark.parametrize("weights", [(1,), (1, 1), (3, 1), (0, 2, 0, 5), (1,) * 16, (7, *(1,) * 14, 100)], ids=str)
def test_every_number_of_one_round_chooses_by_weight(weights: tuple[int, ...]) -> None:
    verdict = weighing(*weights)
    chosen = Counter(native.choose(verdict, number) for number in range(sum(weights)))
    assert chosen == {at: weight for at, weight in enumerate(weights) if weight}


def test_the_largest_number_and_the_largest_weight_choose_something() -> None:
    assert native.choose(weighing(1, 2**32 - 2), 2**32 - 1) == 0  # the number starts over at the total
    assert native.choose(weighing(1, 2**32 - 2), 2**32 - 2) == 1


@pytest.mark.parametrize("count", [0, 99])
def test_without_a_weight_nothing_is_chosen(count: int) -> None:
    verdict = abi.Verdict(7, Kind.DIRECT, count)
    assert native.choose(verdict, 5) == abi.ENDPOINTS


def test_a_total_that_is_more_than_its_parts_chooses_nothing_beyond_them() -> None:
    verdict = weighing(1, 1)
    verdict.weight = 10
    assert [native.choose(verdict, number) for number in (0, 1, 2, 9)] == [0, 1, abi.ENDPOINTS, abi.ENDPOINTS]


SERVER = 42


@pytest.mark.parametrize(
    ("flow", "verdict", "expected"),
    [
        pytest.param({}, {}, True, id="announced"),
        pytest.param({"server": SERVER + 1}, {}, False, id="to another pod"),
        pytest.param({"server": 0}, {}, False, id="to no pod"),
        pytest.param({"kind": Kind.PASS}, {}, False, id="to what the mesh does not know"),
        pytest.param({}, {"number": 8}, False, id="decided again since"),
        pytest.param({}, {"kind": Kind.REFUSE}, False, id="refused by the same number"),
        pytest.param({}, None, False, id="taken back since"),
    ],
)
def test_what_is_announced_is_let_in_while_its_verdict_holds(
    flow: dict[str, Any], verdict: dict[str, Any] | None, expected: bool
) -> None:
    announced = abi.Flow(server=SERVER, number=7, kind=Kind.DIRECT)
    holds = abi.Verdict(number=7, kind=Kind.DIRECT) if verdict is not None else None
    for target, changes in ((announced, flow), (holds, verdict or {})):
        for name, value in changes.items():
            setattr(target, name, value)
    assert native.admits(announced, SERVER, holds, taken=False) is expected
    assert native.admits(announced, SERVER, holds, taken=True) is False
