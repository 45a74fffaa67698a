"""What a peer said in one breath is understood to its end, whatever its first words lead to."""

from __future__ import annotations

import socket

import h2.errors
import pytest

from . import apps, h2peer, harness, pki, verdicts

pytestmark = pytest.mark.kernel

GO = b"go"
MESSAGE = apps.pattern(0, 4096)


class Breath(h2peer.Server):
    """When one stream says GO: the end of the other and its reset, and a message to the one, all in one write."""

    def _answer(self, peer: h2peer.Peer, stream: h2peer.Stream) -> None:
        peer.hold = True  # no stream's window opens again
        peer.h2.increment_flow_control_window(1 << 20)  # the tunnel's does
        super()._answer(peer, stream)

    def _echo(self, peer: h2peer.Peer, stream: h2peer.Stream, echoed: dict[int, int]) -> None:
        if bytes(stream.data) != GO or echoed.get(stream.number):
            return
        echoed[stream.number] = len(GO)
        (other,) = (each.number for each in peer.streams.values() if each is not stream)
        peer.h2.end_stream(other)
        peer.h2.reset_stream(other, h2.errors.ErrorCodes.CONNECT_ERROR)
        peer.h2.send_data(stream.number, MESSAGE)
        peer.flush()


def test_an_end_that_makes_an_app_be_read_does_not_spoil_what_follows(far: harness.Node, ca: pki.Authority) -> None:
    """A server that has finished lets its client go on until it speaks: that is found out by reading the client."""
    near = far
    with Breath(ca.svid("shop", "db")) as server:
        choice = verdicts.Choice(server.address, authority=("10.0.0.9", 8080), target=5, context=harness.CONTEXT)
        door = near.outbound(choice)
        with apps.connect(door) as talker, apps.connect(door) as other:
            _fill(talker)  # beyond the stream's window: some of it waits in the engine's socket
            other.sendall(GO)
            assert apps.read_exactly(other, len(MESSAGE)) == MESSAGE
            assert server.tunnels == 1, "the tunnel was lost"
            assert talker.recv(1) == b"", "the end comes before the reset"


def _fill(sock: socket.socket) -> None:
    """Send until nobody takes more."""
    sock.settimeout(1.0)
    with pytest.raises(TimeoutError):
        sock.sendall(b"\xff" * (64 << 20))
    sock.settimeout(apps.PATIENCE)
