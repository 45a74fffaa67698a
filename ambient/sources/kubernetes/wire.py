"""Bytes that the API server sends to pages and events. Sans-I/O; knows how answers are built, not what they mean."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from ambient.sources.kubernetes.client import ApiError

T = TypeVar("T")
LONGEST_LINE = 32 << 20  # an object has 1.5 MB in etcd; ten times that is no event
UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
Raw = Mapping[str, Any]  # one object, with the fields of its shape


class Malformed(Exception):
    """What came is not what the API promises."""


class _ListMeta(msgspec.Struct):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    more: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, Generic[T]):
    metadata: _ListMeta
    items: list[T] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Failure(msgspec.Struct):
    """A meta/v1 Status."""

    code: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    objects: list[Raw]
    version: str
    more: str  # what to continue with; empty: this was the last


class Change(enum.Enum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class Event:
    change: Change
    object: Raw
    version: str


class Decoder:
    """Reads answers about one kind. Raises Malformed."""

    def __init__(self, shape: Any) -> None:
        self._list = msgspec.json.Decoder(_List[shape])
        self._any_list = msgspec.json.Decoder(_List[dict[str, Any]])
        self._event = msgspec.json.Decoder(_Event)
        self._object = msgspec.json.Decoder(shape)

    def page(self, body: bytes) -> Page:
        """A list, or a piece of it."""
        try:
            try:
                found: _List[Any] = self._list.decode(body)
            except msgspec.ValidationError:  # not of the shape: kept whole, for the readers to complain about
                found = self._any_list.decode(body)
        except UNDECODABLE as error:
            raise Malformed(f"no list: {error}") from error
        if not found.metadata.resource_version:
            raise Malformed("a list without resourceVersion")
        return Page([_named(one) for one in found.items or ()], found.metadata.resource_version, found.metadata.more)

    def event(self, line: bytes) -> Event:
        """One line of a watch. Raises ApiError for one that says that the watch failed."""
        try:
            event = self._event.decode(line)
            if event.type == "ERROR":
                status = msgspec.json.decode(event.object, type=_Failure)
                raise ApiError(f"the watch failed: {status.code} {status.message}", status=status.code)
            change = Change(event.type)
            found = self._read(event.object)
        except UNDECODABLE as error:
            raise Malformed(f"no event: {error}") from error
        version = _metadata(found).get("resourceVersion")
        if not isinstance(version, str) or not version:
            raise Malformed("an event without resourceVersion")
        return Event(change, found if change is Change.BOOKMARK else _named(found), version)

    def _read(self, text: msgspec.Raw) -> Raw:
        try:
            found: Raw = self._object.decode(text)
        except msgspec.ValidationError:
            found = msgspec.json.decode(text, type=dict[str, Any])
        return found


def _metadata(found: Raw) -> Mapping[str, Any]:
    metadata = found.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _named(found: Raw) -> Raw:
    name = _metadata(found).get("name")
    if not isinstance(name, str) or not name:
        raise Malformed("an object without a name")
    return found


class Lines:
    """Cuts a stream of pieces into lines, whatever the pieces' ends. Bounded."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that are complete now. Raises Malformed for one that never ends."""
        *lines, rest = piece.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest, self._size = [], 0
        if rest:
            self._rest.append(rest)
            self._size += len(rest)
        if self._size > LONGEST_LINE:
            raise Malformed(f"more than {LONGEST_LINE} bytes without the end of an event")
        return [line for line in lines if line]


def goes_back(before: str, after: str) -> bool:
    """Whether a resourceVersion is older than one before it on the same stream.

    Those of one kind can be compared as numbers (KEP-5504); of a server that has others, nothing is said.
    """
    return before.isdecimal() and after.isdecimal() and int(after) < int(before)
