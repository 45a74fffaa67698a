"""Verdicts hold while an agent stands by them, and for a while after that; then connections are the engine's again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.capture import Role
from ambient.capture.abi import Kind

from .. import apps, pods
from .conftest import Pair

pytestmark = pytest.mark.kernel


def is_the_engines(pair: Pair) -> bool:
    app = pair.client.start(apps.dial, *pair.spelled(pair.vip))
    to = apps.take(pair.listeners["client"][Role.OUTBOUND])[1]
    return (to, app.receive()["said"]) == ((str(pair.vip[0]), pair.vip[1]), b"engine")


@pytest.mark.parametrize("kind", list(Kind), ids=[kind.name for kind in Kind])
def test_what_nobody_has_stood_by_for_too_long_is_the_engines(pair: Pair, kind: Kind) -> None:
    pair.rule(kind, pair.vip, *([pair.endpoint()] if kind is Kind.DIRECT else []))
    pair.capture.direct.renew(-1)
    assert is_the_engines(pair)
    assert pair.counted("connect_expired") == [1]
    assert pair.ended(0) == []


@pytest.mark.parametrize("gone", ["", "links/connect4"], ids=["both hooks", "the spare alone"])
def test_it_is_direct_again_as_soon_as_somebody_stands_by_it(pair4: Pair, bpffs: Path, gone: str) -> None:
    pair4.allow(pair4.vip)
    if gone:
        pods.detach(bpffs, gone)
    pair4.capture.direct.renew(-1)
    assert is_the_engines(pair4)
    pair4.capture.direct.renew(60)
    server = pair4.serve()
    assert pair4.dial(pair4.vip)["said"] == b"app"
    assert len(pair4.ended()) == 1
    server.finish()


def test_what_is_on_its_way_when_it_ends_does_not_get_in(pair4: Pair) -> None:
    pair4.allow(pair4.vip)
    with pods.unforwarded(pair4.client.node):
        app = pair4.client.start(apps.dial, *pair4.spelled(pair4.vip))
        pods.eventually(pair4.capture.direct.flows)
        pair4.capture.direct.renew(-1)
    assert app.receive() in ("ConnectionResetError", "TimeoutError", apps.REFUSED)
    (record,) = pair4.ended()
    assert (record.flow.admitted, record.bytes_out) == (False, 0)


def test_what_is_open_goes_on(pair4: Pair) -> None:
    pair4.allow(pair4.vip)
    server = pair4.serve()
    app = pair4.client.start(apps.move, *pair4.spelled(pair4.vip))
    assert app.receive() == "ready"
    server.receive()  # it has said its word
    pair4.capture.direct.renew(-1)
    assert len(pair4.capture.direct.flows()) == 1
    app.finish()
    assert pair4.ended()[0].bytes_in == 3
    server.finish()


def test_until_somebody_has_stood_by_nothing_is_direct(pair4: Pair) -> None:
    """A new node's map has a zero in it."""
    table = pair4.capture._pins.maps["lease"]
    table.put(bytes(4), bytes(8))
    pair4.allow(pair4.vip)
    assert is_the_engines(pair4)
