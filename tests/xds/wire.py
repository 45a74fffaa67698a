"""The protobuf wire format by hand: what proves field numbers must not come from the file that states them.

A message is a mapping of field numbers: to encode, a value or a list of values; decoded, always a list of raw values.
Text and bytes are length-delimited, ints varints, mappings messages. Nothing else occurs in these protocols.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Fields = Mapping[int, Any]
Raw = dict[int, list[Any]]


def encode(fields: Fields) -> bytes:
    out = bytearray()
    for number, value in fields.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, int):
                out += varint(number << 3) + varint(each)
            else:
                data = encode(each) if isinstance(each, Mapping) else each.encode() if isinstance(each, str) else each
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(out)


def decode(data: bytes) -> Raw:
    found: Raw = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _take(data, at)
        value, at = _take(data, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2:
            yield tag >> 3, data[at : at + value]
            at += value
        else:
            raise AssertionError(f"field {tag >> 3} has wire type {tag & 7}")


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _take(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return number, at


def texts(raw: Raw, number: int) -> list[str]:
    return [value.decode() for value in raw.get(number, [])]


def text(raw: Raw, number: int) -> str:
    return "".join(texts(raw, number))


def number(raw: Raw, field: int) -> int:
    (value,) = raw.get(field, [0])
    return int(value)


def messages(raw: Raw, number: int) -> list[Raw]:
    return [decode(value) for value in raw.get(number, [])]


def mapping(raw: Raw, number: int) -> dict[str, bytes]:
    """map<string, message or string>"""
    return {text(entry, 1): entry.get(2, [b""])[0] for entry in messages(raw, number)}


def only(found: Sequence[Any]) -> Any:
    (one,) = found
    return one
