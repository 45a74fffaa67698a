"""Frames cut and made here, beside h2 which knows all of them."""

from __future__ import annotations

import itertools

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.xds import frames
from ambient.xds.call import is_message
from ambient.xds.frames import Cutter


def a_server() -> h2.connection.H2Connection:
    found = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    found.initiate_connection()
    return found


def a_client_with_a_call() -> h2.connection.H2Connection:
    found = h2.connection.H2Connection(h2.config.H2Configuration())
    found.initiate_connection()
    found.send_headers(1, [(":method", "POST"), (":scheme", "https"), (":path", "/x"), (":authority", "a")])
    return found


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 300), max_size=12))
def test_pieces_become_frames_wherever_they_are_cut(said: list[bytes], cuts: list[int]) -> None:
    client = a_client_with_a_call()
    head = client.data_to_send()
    stream = head + b"".join(frames.data(1, each) for each in said)
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    cutter = Cutter()
    found = [frame for start, end in itertools.pairwise(ends) for frame in cutter.feed(stream[start:end])]
    assert b"".join(found) == stream
    assert [frames.plain_data(frame) for frame in found[len(found) - len(said) :]] == [(1, each) for each in said]


def test_h2_reads_what_is_made_here() -> None:
    client, server = a_client_with_a_call(), a_server()
    server.receive_data(client.data_to_send() + frames.data(1, b"hello"))
    events = server.receive_data(frames.data(1, b"again") + frames.credit(1, 5) + frames.credit(0, 7))
    assert [type(each) for each in events] == [
        h2.events.DataReceived,
        h2.events.WindowUpdated,
        h2.events.WindowUpdated,
    ]
    assert [each.delta for each in events[1:] if isinstance(each, h2.events.WindowUpdated)] == [5, 7]


@pytest.mark.parametrize("how", [{"end_stream": True}, {"pad_length": 3}])
def test_unusual_data_is_not_plain(how: dict[str, int]) -> None:
    client = a_client_with_a_call()
    client.data_to_send()
    client.send_data(1, b"hello", **how)  # type: ignore[arg-type]  # one of them
    assert frames.plain_data(client.data_to_send()) is None


def test_other_frames_are_not_plain() -> None:
    assert frames.plain_data(frames.credit(1, 5)) is None


def test_a_frame_that_is_too_long_is_refused_before_it_is_there() -> None:
    cutter = Cutter()
    cutter.feed(a_client_with_a_call().data_to_send())
    with pytest.raises(frames.TooLong, match="16394 bytes; 16393 at most"):
        cutter.feed((frames.PAYLOAD_MAX + 1).to_bytes(3, "big") + b"\0\0\0\0\0\1")


def test_the_longest_frame_is_taken() -> None:
    cutter = Cutter()
    cutter.feed(a_client_with_a_call().data_to_send())
    longest = frames.data(1, b"x" * frames.PAYLOAD_MAX)
    assert cutter.feed(longest[:-1]) == []
    assert cutter.feed(longest[-1:] + b"\0") == [longest]


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (b"\0\0\0\0\2ab", True),
        (b"\0\0\0\0\0", True),
        (b"\0\0\0\0\2a", False),
        (b"\0\0\0\0\2abc", False),
        (b"\1\0\0\0\2ab", False),
        (b"\0\0", False),
        (b"", False),
    ],
)
def test_a_message_is_told_from_what_is_none(data: bytes, is_one: bool) -> None:
    assert is_message(data) is is_one
