"""As much of rtnetlink as two rules, one route and a list of addresses take. Knows messages, not what they are for.

Written here because the library for it costs an agent 10 MB, a sixth of what it may take. Source: rtnetlink(7),
linux/netlink.h, linux/rtnetlink.h, linux/fib_rules.h. Works in the calling thread's network namespace.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import NamedTuple, Self

_HEAD = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _ROOT_AND_MATCH, _INTERRUPTED = 0x1, 0x4, 0x300, 0x10
_KIND_OF_ATTRIBUTE = 0x3FFF  # without the flags for nesting and byte order
_TRIES = 5  # a table that changes while it is listed is listed again
_RECEIVE = 64 * 1024  # the kernel fills no more than 32 KiB at a time


class Kind(enum.IntEnum):
    GET_LINKS = 18
    GET_ADDRESSES = 22
    NEW_ROUTE = 24
    DELETE_ROUTE = 25
    GET_ROUTES = 26
    NEW_RULE = 32
    DELETE_RULE = 33
    GET_RULES = 34


class Flag(enum.IntFlag):
    REPLACE = 0x100
    EXCLUSIVE = 0x200
    CREATE = 0x400


# The struct that follows the head; its first byte is the address family.
ROUTE = struct.Struct("=8BI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
RULE = struct.Struct("=8BI")  # struct fib_rule_hdr: family, dst_len, src_len, tos, table, -, -, action, flags
ADDRESS = struct.Struct("=4BI")  # struct ifaddrmsg: family, prefix length, flags, scope, interface
LINK = struct.Struct("=BBHiII")  # struct ifinfomsg: family, -, type, index, flags, change
_BODIES = {Kind.GET_LINKS: LINK, Kind.GET_ADDRESSES: ADDRESS, Kind.GET_ROUTES: ROUTE, Kind.GET_RULES: RULE}


class Entry(NamedTuple):
    """One row of a dump."""

    fields: tuple[int, ...]  # of ROUTE, RULE, ADDRESS or LINK
    attributes: Mapping[int, bytes]

    def number(self, attribute: int) -> int | None:
        value = self.attributes.get(attribute)
        return int.from_bytes(value, sys.byteorder) if value is not None else None


class Rtnetlink:
    """A socket to the kernel's routing. Every failure is an OSError with the kernel's errno."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def dump(self, kind: Kind, family: int = socket.AF_UNSPEC) -> list[Entry]:
        """What the kernel has of a kind, of one family or of all."""
        body = _BODIES[kind]
        for _ in range(_TRIES):
            self._send(kind, _ROOT_AND_MATCH, bytes([family]).ljust(body.size, b"\0"))
            messages = list(self._replies())
            if not any(flags & _INTERRUPTED for flags, _ in messages):
                break
        entries = [Entry(body.unpack_from(data), dict(_attributes(data[body.size :]))) for _, data in messages]
        # where a family is not compiled in, the kernel lists others instead
        return [entry for entry in entries if family in (socket.AF_UNSPEC, entry.fields[0])]

    def change(self, kind: Kind, flags: Flag, header: bytes, attributes: Mapping[int, int | bytes]) -> None:
        """Numbers are of 32 bits."""
        self._send(kind, flags | _ACK, header + b"".join(_attribute(*each) for each in attributes.items()))
        list(self._replies())

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        self._sequence += 1
        head = _HEAD.pack(_HEAD.size + len(payload), kind, flags | _REQUEST, self._sequence, 0)
        self._socket.send(head + payload)

    def _replies(self) -> Iterator[tuple[int, bytes]]:
        """(flags, payload) of each message, up to the end of a dump or the acknowledgement."""
        while True:
            data = self._socket.recv(_RECEIVE)
            while data:
                length, kind, flags, sequence, _ = _HEAD.unpack_from(data)
                payload, data = data[_HEAD.size : length], data[_aligned(length) :]
                if sequence != self._sequence:
                    continue  # of a request that was given up
                if kind in (_ERROR, _DONE):
                    number = -struct.unpack_from("=i", payload)[0] if payload else 0
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                yield flags, payload


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _KIND_OF_ATTRIBUTE, data[_ATTRIBUTE.size : length]
        data = data[max(_aligned(length), _ATTRIBUTE.size) :]


def _attribute(kind: int, value: int | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else struct.pack("=I", value)
    return (_ATTRIBUTE.pack(_ATTRIBUTE.size + len(raw), kind) + raw).ljust(_aligned(_ATTRIBUTE.size + len(raw)), b"\0")


def _aligned(length: int) -> int:
    return (length + 3) & ~3
