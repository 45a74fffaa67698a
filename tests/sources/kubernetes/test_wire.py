"""Bytes to pages and events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ambient.sources.kubernetes import kinds, wire
from ambient.sources.kubernetes.client import ApiError
from ambient.sources.kubernetes.wire import Change, Decoder, Lines, Malformed

from .script import a_bookmark, a_namespace, an_error, an_event

DECODER = Decoder(kinds.Namespace)
STREAM = b'{"a":1}\n\n{"b":"\xc2\x85\xe2\x80\xa8"}\n{"c":3}\n'
LINES = [b'{"a":1}', b'{"b":"\xc2\x85\xe2\x80\xa8"}', b'{"c":3}']


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 1000])
def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    """Only a line feed ends one: U+0085 and U+2028 may be in anybody's annotations."""
    lines = Lines()
    assert [line for at in range(0, len(STREAM), size) for line in lines.feed(STREAM[at : at + size])] == LINES


def test_half_a_line_is_no_line() -> None:
    lines = Lines()
    assert lines.feed(b'{"a":1}\n{"b"') == [b'{"a":1}']
    assert lines.feed(b"") == []


def test_a_line_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_LINE", 10)
    lines = Lines()
    assert lines.feed(b"x" * 100 + b"\n" + b"y" * 9) == [b"x" * 100]
    with pytest.raises(Malformed, match="more than 10 bytes"):
        lines.feed(b"yy")


def page(**more: Any) -> bytes:
    return json.dumps(
        {"metadata": {"resourceVersion": "7", "continue": "c"}, "items": [a_namespace("a")]} | more
    ).encode()


def test_a_page_says_what_was_found_at_which_version_and_how_to_go_on() -> None:
    found = DECODER.page(page(kind="NamespaceList", apiVersion="v1"))
    assert [one["metadata"]["name"] for one in found.objects] == ["a"]
    assert (found.version, found.more) == ("7", "c")


@pytest.mark.parametrize("items", [None, []])
def test_an_empty_list_may_be_null(items: Any) -> None:
    assert DECODER.page(page(items=items)).objects == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"metadata": {"resourceVersion": "7"}, "items": [',
        b"[]",
        b"{}",
        b'{"metadata": {}, "items": []}',
        b'{"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {}}]}',
        b'{"metadata": {"resourceVersion": "7"}, "items": [7]}',
        b'{"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "\xff"}}]}',
        b'{"metadata": {"resourceVersion": "7"}, "items": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["empty", "no JSON", "cut off", "no object", "no metadata", "no version", "no name", "no objects", "no text",
         "very deep"],
)  # fmt: skip
def test_what_is_no_list_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        DECODER.page(body)


@pytest.mark.parametrize("change", ["ADDED", "MODIFIED", "DELETED"])
def test_an_event_says_what_happened_to_what_at_which_version(change: str) -> None:
    found = DECODER.event(an_event(change, a_namespace("a", "9")))
    assert (found.change, found.object["metadata"]["name"], found.version) == (Change[change], "a", "9")


def test_a_bookmark_is_of_no_object() -> None:
    found = DECODER.event(a_bookmark("12"))
    assert (found.change, found.version) == (Change.BOOKMARK, "12")


def test_an_error_keeps_its_code() -> None:
    with pytest.raises(ApiError, match="410 too old") as caught:
        DECODER.event(an_error(410, "too old"))
    assert caught.value.status == 410


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"7",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": 7}',
        b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "1"}}}',
        b'{"type": "ADDED", "object": {"metadata": {"name": "a"}}}',
        b'{"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": 1}}}',
        b'{"type": "RENAMED", "object": {"metadata": {"name": "a", "resourceVersion": "1"}}}',
        b'{"type": "BOOKMARK", "object": {"metadata": {}}}',
        b'{"type": "ERROR", "object": 7}',
    ],
)
def test_what_is_no_event_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        DECODER.event(line)


def test_an_object_that_is_not_of_its_shape_is_kept_whole_for_the_reader_to_complain_about() -> None:
    pods = Decoder(kinds.Pod)
    odd = {"metadata": {"name": "a", "resourceVersion": "1"}, "spec": [1], "more": 1}
    assert pods.event(an_event("ADDED", odd)).object == odd
    assert pods.page(page(items=[odd])).objects == [odd]


@pytest.mark.parametrize(
    ("before", "after", "back"),
    [("9", "10", False), ("10", "9", True), ("9", "9", False), ("", "9", False), ("x", "9", False), ("9", "y", False)],
)
def test_versions_are_compared_as_numbers_if_they_are_some(before: str, after: str, back: bool) -> None:
    assert wire.goes_back(before, after) is back
