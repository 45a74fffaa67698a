"""Framing: whole, split where it may be, and broken in every way."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.dataplane import abi, versions, wire
from ambient.dataplane.wire import Message


def an_ended(number: int, text: bytes = b"") -> Message:
    return Message(abi.Type.ENDED, abi.Conn(id=number, text_len=len(text)), text)


def packets_of(*messages: Message, version: int = abi.ABI) -> list[wire.Packet]:
    return list(wire.pack(messages, version))


def test_what_is_packed_is_unpacked_in_order_with_tails_and_descriptors() -> None:
    (packet,) = packets_of(
        an_ended(1, b"why"), Message(abi.Type.ROW_LISTENER, abi.Listen(listener=7, role=2), fds=[5]), an_ended(2)
    )
    first, second, third = wire.unpack(bytes(packet.data), packet.fds).messages
    assert isinstance(first.body, abi.Conn)
    assert (first.body.id, first.tail[: first.body.text_len]) == (1, b"why")
    assert isinstance(second.body, abi.Listen)
    assert (second.body.listener, tuple(second.fds)) == (7, (5,))
    assert isinstance(third.body, abi.Conn)
    assert third.body.id == 2


def test_messages_spill_into_further_packets_at_either_limit() -> None:
    assert len(packets_of(*(an_ended(n, b"x" * 1000) for n in range(100)))) == 2
    by_fds = packets_of(*(Message(abi.Type.ROW_LISTENER, abi.Listen(), fds=[9]) for _ in range(abi.FDS_MAX + 1)))
    assert [len(packet.fds) for packet in by_fds] == [abi.FDS_MAX, 1]


@pytest.mark.parametrize(
    "message",
    [an_ended(1, b"x" * abi.PACKET_MAX), Message(abi.Type.ROW_LISTENER, abi.Listen(), fds=list(range(65)))],
    ids=["too many bytes", "too many descriptors"],
)
def test_a_message_that_fits_no_packet_is_refused(message: Message) -> None:
    with pytest.raises(ValueError, match="fits no packet"):
        packets_of(message)


def head(kind: int, size: int, fds: int = 0, body: int = 0) -> bytes:
    return bytes(abi.Head(type=kind, fds=fds, size=size, body=body))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\1\0\0", "head was expected"),
        (head(99, 8), "type 99"),
        (head(0, 8), "type 0"),
        (head(abi.Type.ANSWER, 64) + bytes(56), "not one an engine sends"),
        (head(abi.Type.HELLO, 8), "HELLO says it has 8 bytes"),
        (head(abi.Type.HELLO, 4096) + bytes(32), "HELLO says it has 4096 bytes, 40 are there"),
        (head(abi.Type.HELLO, 41) + bytes(33), "HELLO says"),
        (head(abi.Type.HELLO, 40, fds=1) + bytes(32), "announces 1 descriptors, 0 came"),
        (head(abi.Type.HELLO, 40, body=24) + bytes(32), "a body of 24 bytes, no version's has less than 32"),
        (head(abi.Type.HELLO, 40, body=64) + bytes(32), "HELLO says"),
        (head(40, 4096) + bytes(8), "message type 40 says it has 4096 bytes"),
        (head(40, 0), "message type 40 says it has 0 bytes"),
    ],
    ids=[
        "short",
        "an unknown agent's",
        "none",
        "an agent's",
        "no body",
        "beyond the packet",
        "unaligned",
        "descriptor missing",
        "body too short",
        "body beyond the message",
        "unknown, beyond the packet",
        "unknown, without a head",
    ],
)
def test_a_broken_packet_is_a_protocol_error(data: bytes, says: str) -> None:
    with pytest.raises(wire.ProtocolError, match=says):
        wire.unpack(data, [])


def test_descriptors_nobody_announced_are_a_protocol_error() -> None:
    (packet,) = packets_of(an_ended(1))
    with pytest.raises(wire.ProtocolError, match="1 descriptors came"):
        wire.unpack(bytes(packet.data), [3])


def test_what_a_later_version_adds_is_skipped_and_what_follows_is_read() -> None:
    conn = bytes(abi.Conn(id=5, text_len=3))
    longer = head(abi.Type.ENDED, 8 + len(conn) + 24 + 8, body=len(conn) + 24) + conn + b"\xff" * 24 + b"why" + bytes(5)
    unknown = head(40, 24, fds=2, body=8) + b"\xff" * 16
    (last,) = packets_of(an_ended(6))
    found = wire.unpack(longer + unknown + bytes(last.data), [7, 8])
    first, second = found.messages
    assert isinstance(first.body, abi.Conn)
    assert (first.body.id, first.tail[: first.body.text_len]) == (5, b"why")
    assert isinstance(second.body, abi.Conn)
    assert second.body.id == 6
    assert (found.skipped, found.unread) == ([40], [7, 8])


def test_what_an_earlier_version_lacks_is_zero() -> None:
    """Version 3: no length of the body in the head, and a HELLO without the oldest version."""
    hello = bytes(abi.Hello(abi=3, build_len=2))[: versions.LEAST[abi.Type.HELLO]]
    (message,) = wire.unpack(head(abi.Type.HELLO, 48) + hello + b"v3" + bytes(6), []).messages
    assert isinstance(message.body, abi.Hello)
    assert (message.body.abi, message.body.oldest, message.tail[:2]) == (3, 0, b"v3")


def test_what_an_earlier_version_could_not_read_is_not_said_to_it() -> None:
    speaks, cut = Message(abi.Type.SPEAKS, abi.Speaks(abi=4, oldest=3)), Message(abi.Type.CUT, abi.Cut(answer=7))
    (packet,) = packets_of(speaks, cut, version=3)
    assert bytes(packet.data) == head(abi.Type.CUT, 24) + bytes(abi.Cut(answer=7))
    (packet,) = packets_of(speaks, cut)
    assert bytes(packet.data).endswith(head(abi.Type.CUT, 24, body=16) + bytes(abi.Cut(answer=7)))


@given(st.binary(max_size=400), st.lists(st.integers(0, 9), max_size=3))
def test_no_bytes_at_all_do_anything_but_unpack_or_raise_protocol_error(data: bytes, fds: list[int]) -> None:
    with contextlib.suppress(wire.ProtocolError):
        wire.unpack(data, fds)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(1, 65535))
def test_addresses_survive_the_way_and_mapped_ones_become_ipv4(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    assert wire.read_addr(wire.addr(ip, port)) == (mapped or ip, port)


def test_addresses_are_shown_as_people_write_them() -> None:
    assert wire.show(ipaddress.ip_address("10.0.0.1"), 80) == "10.0.0.1:80"
    assert wire.show(ipaddress.ip_address("fd00::1"), 80) == "[fd00::1]:80"
    assert wire.show_packed(bytes(16), 0) == ""
