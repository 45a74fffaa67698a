"""The demo's tools, and its honesty: with agents that do nothing it must not hold."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from ambient.lab import Lab
from ambient.lab.chat import Chat
from ambient.lab.demo import CLIENT, Demo, DidNotHold
from ambient.lab.records import Records
from ambient.lab.wiretap import Direction, Segment, Stream, Wiretap, segment
from tests.lab.test_lab import FAKE_AGENT

EXAMPLE = Path(__file__).parents[2] / "examples/shop.yaml"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("demotest") as lab:
        lab.up(EXAMPLE, agent=FAKE_AGENT)
        yield lab


TCP = struct.pack("!HHIIBBHHH", 4000, 80, 1, 1, 6 << 4, 0x18, 100, 0, 0) + b"opts"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        pytest.param(
            b"\0" * 12
            + b"\x08\0"
            + struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + 24 + 2, 0, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
            + TCP
            + b"hi"
            + b"padding",
            Segment(Direction(IPv4Address("10.0.0.1"), 4000, IPv4Address("10.0.0.2"), 80), 1, False, b"hi"),
            id="IPv4, padded",
        ),
        pytest.param(
            b"\0" * 12
            + b"\x86\xdd"
            + struct.pack(
                "!IHBB16s16s", 6 << 28, 24 + 2, 6, 64, b"\xfd" + b"\0" * 14 + b"\1", b"\xfd" + b"\0" * 14 + b"\2"
            )
            + TCP
            + b"hi",
            Segment(Direction(IPv6Address("fd00::1"), 4000, IPv6Address("fd00::2"), 80), 1, False, b"hi"),
            id="IPv6",
        ),
        pytest.param(b"\0" * 12 + b"\x08\x06" + b"\0" * 46, None, id="ARP"),
        pytest.param(b"\0" * 12 + b"\x08\0" + b"\x45" + b"\0" * 8 + b"\x11" + b"\0" * 20, None, id="UDP"),
    ],
)
def test_a_segments_payload_is_taken_out_of_its_frame(frame: bytes, expected: object) -> None:
    assert segment(frame) == expected


WAY = Direction(IPv4Address("10.0.0.1"), 4000, IPv4Address("10.0.0.2"), 80)


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ([(9, True, b""), (10, False, b"one"), (13, False, b"two")], b"onetwo"),
        ([(10, False, b"one"), (10, False, b"one"), (13, False, b"two"), (10, False, b"onetwo")], b"onetwo"),
        ([(13, False, b"two"), (10, False, b"one")], b"onetwo"),
        ([(10, False, b"one"), (15, False, b"two")], b"one\0\0two"),
        ([(2**32 - 2, False, b"one"), (1, False, b"two")], b"onetwo"),
        ([(10, False, b"one"), (7_000_000, True, b""), (7_000_001, False, b"two")], b"onetwo"),
    ],
    ids=["in order", "sent again", "the other way round", "a hole", "past the last number", "another connection"],
)
def test_what_was_said_is_put_together_by_its_place_in_the_stream(
    segments: list[tuple[int, bool, bytes]], said: bytes
) -> None:
    stream = Stream()
    for number, opens, payload in segments:
        stream.add(Segment(WAY, number, opens, payload))
    assert bytes(stream.said) == said


@pytest.mark.kernel
def test_the_wiretap_reads_both_directions_whole(lab: Lab) -> None:
    with Wiretap(lab, "node1") as tap:
        lab.exec(CLIENT, "curl", "-sS", "-4", "http://web/?megabytes=2")
    answer = next(tap.said(b"\0" * 2**20 + b"\1" * 2**20))
    assert answer.source_port == 8080  # after the stand-in for kube-proxy, which is in the node
    assert tap.ports() == {8080}
    assert len(list(tap.said(b"GET /?megabytes=2"))) == 1
    assert len(tap.seen) == 2


@pytest.mark.kernel
def test_a_chat_goes_on_until_the_other_side_ends_it(lab: Lab) -> None:
    with Chat(lab, CLIENT, "api", 7000) as chat:
        assert chat.peer.startswith("10.96.")
        assert chat.say("one") == "one"
        assert chat.until_cut(0.05) is None
        lab.exec("shop/api", "pkill", "-f", "socketserver")
        assert chat.until_cut(5) is not None
    lab.wait(timeout=15)


@pytest.mark.kernel
def test_a_chat_nobody_takes_is_an_error(lab: Lab) -> None:
    with pytest.raises(ConnectionError, match="refused"):
        Chat(lab, CLIENT, "api", 7001)


@pytest.mark.kernel
def test_records_are_read_from_now_on(lab: Lab) -> None:
    log = lab.log_file("node/node2")
    with log.open("a") as file:
        file.write('{"n": 1}\n')
        file.flush()
        with Records(lab, "node2") as records:
            file.write('a log line\n{"n": 2}\n{"n": ')
            file.flush()
            assert records.first(lambda row: row["n"] > 0) == {"n": 2}
            assert records.first(lambda row: row["n"] > 2, patience=0.05) is None
            file.write("3}\n")
            file.flush()
            assert records.first(lambda row: row["n"] > 2) == {"n": 3}


@pytest.mark.kernel
def test_without_a_mesh_only_the_first_claim_holds(lab: Lab) -> None:
    demo = Demo(lab)
    assert "42 apples" in demo.before()[0]
    with pytest.raises(DidNotHold):
        demo.labelled()
    with pytest.raises(DidNotHold, match="was answered"):
        demo.denied()
    with pytest.raises(DidNotHold, match="was answered"):
        demo.strict()
    with pytest.raises(DidNotHold, match="still stands"):
        demo.rejudged()
