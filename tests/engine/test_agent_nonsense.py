"""A message that makes no sense ends the attachment that sent it, and nothing else."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable

import pytest

from ambient.dataplane import abi, wire

from . import agent, apps, harness, verdicts

pytestmark = pytest.mark.kernel

HEAD = ctypes.sizeof(abi.Head)


def head(kind: int, size: int, fds: int = 0, body: int = 0) -> bytes:
    return bytes(abi.Head(type=kind, fds=fds, size=size, body=body))


def whole(kind: abi.Type, body: abi.Struct, tail: bytes = b"") -> bytes:
    (packet,) = wire.pack([wire.Message(kind, body, tail)])
    return bytes(packet.data)


def context(**changes: int) -> bytes:
    body = abi.Context(context=5, expires_at=1 << 62)
    for name, value in changes.items():
        setattr(body, name, value)
    return whole(abi.Type.CONTEXT, body, b"not PEM!")


NONSENSE: dict[str, bytes] = {
    "a single byte": b"\0",
    "half a head": head(abi.Type.FORGET, 16)[:4],
    "a head that says zero bytes": head(abi.Type.FORGET, 0),
    "a head that says less than its struct": head(abi.Type.SETTINGS, 16) + bytes(8),
    "a head that says more than came": head(abi.Type.FORGET, 1 << 15) + bytes(8),
    "a body longer than its message": head(abi.Type.FORGET, HEAD + 8, body=16) + bytes(8),
    "a body shorter than it ever was": head(abi.Type.CUT, HEAD + 16, body=8) + bytes(16),
    "a body that is no multiple of 8": head(abi.Type.FORGET, HEAD + 16, body=12) + bytes(16),
    "a size that is no multiple of 8": head(abi.Type.FORGET, HEAD + 12) + bytes(12),
    "garbage": os.urandom(512),
    "an unknown type of a size that does not fit": head(99, HEAD + 16) + bytes(8),
    "type zero": head(0, HEAD + 8) + bytes(8),
    "a type only engines send": whole(abi.Type.ENDED, abi.Conn()),
    "a type only engines of a later version may send": head(40, HEAD + 8) + bytes(8),
    "a version from before the oldest": whole(abi.Type.SPEAKS, abi.Speaks(abi=2, oldest=1)),
    "no version that is spoken here": whole(abi.Type.SPEAKS, abi.Speaks(abi=99, oldest=abi.ABI + 1)),
    "descriptors announced that did not come": head(abi.Type.FORGET, HEAD + 8, fds=3) + bytes(8),
    "a listener without its socket": whole(abi.Type.LISTEN, abi.Listen(listener=9, pod=1, role=1)),
    "a listener of an unknown role": whole(abi.Type.LISTEN, abi.Listen(listener=9, pod=1, role=9)),
    "an answer to question zero": whole(abi.Type.ANSWER, abi.Answer(question=0, answer=7, verdict=abi.Verdict.REFUSE)),
    "an answer with too many choices": whole(
        abi.Type.ANSWER,
        abi.Answer(question=1, answer=7, verdict=abi.Verdict.CARRY, choices=17),
        17 * bytes(ctypes.sizeof(abi.Choice)),
    ),
    "an answer with fewer choices than it says": whole(
        abi.Type.ANSWER, abi.Answer(question=1, answer=7, verdict=abi.Verdict.CARRY, choices=2)
    ),
    "an answer whose lengths overflow": whole(
        abi.Type.ANSWER,
        abi.Answer(
            question=1, answer=7, verdict=abi.Verdict.REFUSE, label_len=(1 << 32) - 1, baggage_len=(1 << 32) - 1
        ),
    ),
    "an answer of an unknown verdict": whole(abi.Type.ANSWER, abi.Answer(question=1, answer=7, verdict=77)),
    "a context whose lengths overflow": context(cert_len=(1 << 32) - 1, key_len=1 << 31, roots_len=1),
    "contexts that are fewer than it says": whole(abi.Type.CONTEXTS, abi.Contexts(count=2), bytes(8)),
    "a clients map without its descriptor": head(abi.Type.CLIENTS_MAP, HEAD),
}


def send_nonsense(node: harness.Node, packet: bytes, fds: tuple[int, ...] = ()) -> None:
    """Attach as an agent of its own, say it, and expect to be hung up on."""
    stranger = agent.Agent(node.engine.run_dir, 1)
    try:
        stranger.send_packet(packet, fds)
        stranger.wait(lambda: stranger.lost == {0}, "the engine hangs up")
    finally:
        stranger.close()


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_ends_the_attachment_and_nothing_else(far: harness.Node, kind: str) -> None:
    with apps.App(apps.echo) as app:
        door = far.outbound(verdicts.Choice(app.address))
        with apps.connect(door) as old:
            exchange(old)
            far.agent.close()
            send_nonsense(far, NONSENSE[kind])
            exchange(old)
            far.next_agent()
            with apps.connect(door) as new:
                exchange(new)


def test_descriptors_sent_along_with_nonsense_are_closed(far: harness.Node) -> None:
    far.agent.close()
    before = far.engine.fds()
    for _ in range(5):
        with socket.socket() as one, socket.socket() as two:
            send_nonsense(far, b"nonsense", (one.fileno(), two.fileno()))
    harness.process.eventually(lambda: far.engine.fds() <= before, "what came along is closed")
    far.next_agent()


def test_descriptors_nobody_announced_end_the_attachment(far: harness.Node) -> None:
    far.agent.close()
    with socket.socket() as sock:
        send_nonsense(far, whole(abi.Type.FORGET, abi.Ref(id=0)), (sock.fileno(),))
    far.next_agent()


def test_a_pipe_in_the_place_of_a_socket_harms_nobody(far: harness.Node) -> None:
    """Whether the engine notices at once or at the first connection: it must not take it for a listener."""
    readable, writable = os.pipe()
    try:
        far.agent.send(wire.Message(abi.Type.STASH, abi.PodRef(pod=harness.POD), fds=[readable]))
        body = abi.Listen(listener=21, pod=harness.POD, role=abi.Role.OUTBOUND)
        far.agent.send(wire.Message(abi.Type.LISTEN, body, fds=[writable]))
    except OSError:
        pass  # hung up on between the two
    finally:
        os.close(readable)
        os.close(writable)
    far.agent.close()
    far.next_agent()
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        exchange(client)


def test_half_a_packet_before_the_nonsense_is_taken_back_or_done_but_never_half_done(far: harness.Node) -> None:
    """A good message in front of a bad one in the same packet."""
    far.agent.close()
    good = whole(abi.Type.SETTINGS, abi.Settings(**agent.SETTINGS))
    send_nonsense(far, good + head(0, HEAD + 8) + bytes(8))
    far.next_agent()
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        exchange(client)


def test_a_refusal_to_understand_a_certificate_leaves_the_old_one(far: harness.Node) -> None:
    """PEM that OpenSSL cannot read: the new context is no context, or the attachment ends; the engine lives."""
    far.agent.send_packet(context(cert_len=3, key_len=3, roots_len=2))
    far.agent.close()
    far.next_agent()
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        exchange(client)


UNKNOWN: dict[str, Callable[[harness.Node], None]] = {
    "an answer to a question nobody asked": lambda node: node.agent.send(
        wire.Message(abi.Type.ANSWER, abi.Answer(question=1 << 40, answer=1 << 40, verdict=abi.Verdict.REFUSE))
    ),
    "a cut of an unknown answer": lambda node: node.agent.cut(1 << 40),
    "a forget of an unknown answer": lambda node: node.agent.refer(abi.Type.FORGET, 1 << 40),
    "an unlisten of an unknown listener": lambda node: node.agent.refer(abi.Type.UNLISTEN, 1 << 40),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_may_have_ended_meanwhile_is_no_nonsense(far: harness.Node, kind: str) -> None:
    """Agent and engine speak at the same time: a number may be gone by the time it is named."""
    UNKNOWN[kind](far)
    far.agent.inventory()
    assert far.agent.lost == set()


def exchange(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert apps.read_exactly(client, 5) == b"hello"
