"""An agent of another version: what it adds is skipped, what it lacks is as before, and nothing ends over it."""

from __future__ import annotations

import pathlib
import socket

import pytest

from ambient.dataplane import abi, wire
from tests.mesh.successors import engine_of_the_next_version

from . import apps, harness, process, verdicts

pytestmark = pytest.mark.kernel

ADDED = b"\xff" * 24
UNKNOWN = bytes(abi.Head(type=99, size=24, body=8)) + b"\xff" * 16


def later(packet: bytes) -> bytes:
    """The same messages with more fields in each body, and messages that are not known yet around each."""
    found = UNKNOWN
    while packet:
        head = abi.Head.from_buffer_copy(packet)
        body, tail = packet[8 : 8 + head.body], packet[8 + head.body : head.size]
        grown = abi.Head(type=head.type, fds=head.fds, size=head.size + 32, body=head.body + 24)
        found += bytes(grown) + body + ADDED + tail + b"\xff" * 8 + UNKNOWN
        packet = packet[head.size :]
    return found


def earlier(packet: bytes) -> bytes:
    """As version 3 wrote them: without a length of the body."""
    found = b""
    while packet:
        head = abi.Head.from_buffer_copy(packet)
        if head.type != abi.Type.SPEAKS:
            found += bytes(abi.Head(type=head.type, fds=head.fds, size=head.size)) + packet[8 : head.size]
        packet = packet[head.size :]
    return found


@pytest.fixture
def speaking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every agent of this test speaks so."""
    say = harness.agent.Agent.send_packet

    def send(self: harness.agent.Agent, data: bytes, fds: object = (), **options: object) -> None:
        say(self, request.param(data), fds, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.agent.Agent, "send_packet", send)


def carries(node: harness.Node) -> None:
    """A question, an answer, bytes, a record, a cut, a policy's change of mind, an inventory: all there is."""
    with apps.App(apps.echo) as app:
        door = node.outbound(verdicts.Choice(app.address))
        with apps.connect(door) as client, apps.connect(door) as other:
            for sock in (client, other):
                exchange(sock)
            rows = [row.type for _, row in node.agent.inventory()]
            assert rows.count(abi.Type.ROW_CONN) == 2
            client.close()
            (record,) = node.agent.await_ended()
            assert (record.reason, record.moved) == (abi.Reason.CLOSED, (5, 5))
            for number in node.agent.answers:
                node.agent.cut(number)
            assert apps.is_reset(other)
            assert node.agent.await_ended(2)[1].reason is abi.Reason.CUT
        number, door = node.listen(abi.Role.OUTBOUND, verdicts.Choice(app.address))
        node.agent.refer(abi.Type.UNLISTEN, number)
        node.agent.inventory()
        assert node.agent.lost == set()


def exchange(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert apps.read_exactly(client, 5) == b"hello"


@pytest.mark.usefixtures("speaking")
@pytest.mark.parametrize("speaking", [later, earlier], indirect=True)
def test_an_agent_of_another_version_is_served_like_any_other(far: harness.Node) -> None:
    carries(far)


def test_an_engine_of_a_later_version_serves_this_agent(tmp_path: pathlib.Path, ca: harness.pki.Authority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "BINARY", engine_of_the_next_version(tmp_path))
        with harness.node(tmp_path / "later", ca.svid("shop", "db")) as node:
            assert node.agent.hello[0].abi == abi.ABI + 1
            carries(node)


def test_a_descriptor_that_came_with_an_unknown_message_is_closed(far: harness.Node) -> None:
    before = far.engine.fds()
    for _ in range(5):
        with socket.socket() as sock:
            far.agent.send_packet(bytes(abi.Head(type=99, size=8, fds=1)), [sock.fileno()])
    far.agent.inventory()
    assert far.engine.fds() <= before
    assert "of type 99 are of a later version" in far.engine.said()


def test_a_cut_for_a_reason_of_a_later_version_cuts(far: harness.Node) -> None:
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        exchange(client)
        (number,) = far.agent.answers
        far.agent.send(wire.Message(abi.Type.CUT, abi.Cut(answer=number, reason=4000)))
        assert apps.is_reset(client)
        assert far.agent.await_ended()[0].reason is abi.Reason.CUT
