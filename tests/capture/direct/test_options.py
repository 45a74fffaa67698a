"""A direct connection stays on the route it was given: its socket is bound to no device and given no other mark."""

from __future__ import annotations

import pytest

from .. import apps, pods
from ..captured import DEVICE, INDEX, Option, mark
from .conftest import PORT, Pair

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("option", [DEVICE, INDEX, mark(0), mark(0x53B), mark(0x1000)], ids=str)
def test_after_the_connect_it_is_refused(pair: Pair, served: pods.Remote, option: Option) -> None:
    del served
    pair.allow(pair.vip)
    app = pair.client.start(apps.move, *pair.spelled(pair.vip))
    assert app.receive() == "ready"
    app.tell(("setsockopt", *option))
    assert app.receive() == apps.FORBIDDEN


def test_before_the_connect_a_device_is_refused_as_ever(pair: Pair) -> None:
    pair.allow(pair.vip)
    assert pair.dial(pair.vip, "device=eth0") == apps.FORBIDDEN


def test_the_applications_own_bits_of_the_mark_stay(pair4: Pair) -> None:
    pair4.allow(pair4.vip)
    server = pair4.serve()
    assert pair4.client.run(mark_and_dial, *pair4.spelled(pair4.vip), 0x2BC00123) == 0x2BC00000 | 0x53B
    server.finish()


def test_our_mark_goes_when_the_socket_goes_elsewhere(pair4: Pair) -> None:
    """To the pod itself, for instance."""
    pair4.allow(pair4.vip)
    own = pair4.client.start(apps.serve, str(pair4.client.v4), PORT)
    assert own.receive() == "listening"
    with pods.unforwarded(pair4.client.node):
        app = pair4.client.start(apps.dial_twice, pair4.spelled(pair4.vip), (str(pair4.client.v4), PORT), apps.SO_MARK)
        assert app.receive() == b"app" + (0).to_bytes(4, "little")


def mark_and_dial(channel: apps.socket.socket, to: str, port: int, value: int) -> int:
    """The mark that is on the connected socket."""
    del channel
    with apps.socket.socket() as sock:
        sock.setsockopt(*mark(value))
        sock.connect((to, port))
        return sock.getsockopt(apps.socket.SOL_SOCKET, apps.SO_MARK) & 0xFFFFFFFF
