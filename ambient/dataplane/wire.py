"""Messages to packets and back: the framing of engine/abi.h. Sans I/O.

A packet carries at most PACKET_MAX bytes and FDS_MAX descriptors; a message never spans two packets. What an engine of
a later version says is read as far as it is known here; what one of an earlier version cannot read it is not told.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ambient.dataplane import abi, versions
from ambient.model.mesh import IPAddress, address, packed16

_HEAD = ctypes.sizeof(abi.Head)
_KINDS = {int(kind): kind for kind in abi.BODIES}


class ProtocolError(Exception):
    """The engine said something that engine/abi.h does not allow; the text says what."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its type, its struct (None where the type has no body), the bytes behind it, its descriptors.

    `give`: the descriptors become the sender's to close, whether they could be sent or not.
    """

    type: abi.Type
    body: abi.Struct | None = None
    tail: bytes = b""
    fds: Sequence[int] = ()
    give: bool = False


@dataclass(slots=True)
class Packet:
    data: bytearray = field(default_factory=bytearray)
    fds: list[int] = field(default_factory=list)


def pack(messages: Sequence[Message], version: int = abi.ABI) -> Iterator[Packet]:
    """As few packets as the limits allow, in order. Raises ValueError for a message that fits no packet.

    `version`: the reader's. Messages that it does not know are left out; their descriptors are the caller's to close.
    """
    packet = Packet()
    lengths = version >= versions.BODY_LENGTHS_SINCE
    for message in messages:
        if not is_known(message, version):
            continue
        body = bytes(message.body) if message.body is not None else b""
        if not lengths:
            body = body[: versions.LEAST[message.type]]
        size = _HEAD + len(body) + len(message.tail)
        padding = -size % 8
        if size + padding > abi.MESSAGE_MAX or len(message.fds) > abi.FDS_MAX:
            raise ValueError(f"{message.type.name} of {size} bytes and {len(message.fds)} descriptors fits no packet")
        if len(packet.data) + size + padding > abi.PACKET_MAX or len(packet.fds) + len(message.fds) > abi.FDS_MAX:
            yield packet
            packet = Packet()
        head = abi.Head(type=message.type, fds=len(message.fds), size=size + padding, body=len(body) if lengths else 0)
        packet.data += bytes(head)
        packet.data += body
        packet.data += message.tail
        packet.data += bytes(padding)
        packet.fds += message.fds
    if packet.data:
        yield packet


def is_known(message: Message, version: int) -> bool:
    """Can an engine of this version read it?"""
    return versions.SINCE.get(message.type, abi.ABI_OLDEST) <= version


@dataclass(slots=True)
class Unpacked:
    """`skipped`: the types of messages that are not known here; `unread`: their descriptors, the caller's to close."""

    messages: list[Message] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)


def unpack(data: bytes, fds: Sequence[int]) -> Unpacked:
    """The messages of one packet of the engine. Raises ProtocolError; the caller then closes the descriptors."""
    found = Unpacked()
    offset = taken = 0
    while offset < len(data):
        if len(data) - offset < _HEAD:
            raise ProtocolError(f"{len(data) - offset} bytes where a message head was expected")
        head = abi.Head.from_buffer_copy(data, offset)
        if head.type == 0 or head.type >= abi.Type.SETTINGS:
            raise ProtocolError(f"message type {head.type} is not one an engine sends")
        kind = _KINDS.get(head.type)
        end = offset + head.size
        body = offset + _HEAD, offset + _HEAD + (head.body or (versions.LEAST[kind] if kind else 0))
        if head.size < _HEAD or head.size % 8 or end > len(data) or body[1] > end:
            name = kind.name if kind else f"message type {head.type}"
            raise ProtocolError(f"{name} says it has {head.size} bytes, {len(data) - offset} are there")
        if taken + head.fds > len(fds):
            raise ProtocolError(f"message type {head.type} announces {head.fds} descriptors, {len(fds) - taken} came")
        own = tuple(fds[taken : taken + head.fds])
        if kind is None:
            found.skipped.append(head.type)
            found.unread.extend(own)
        else:
            found.messages.append(Message(kind, _read(kind, data[slice(*body)]), data[body[1] : end], own))
        taken += head.fds
        offset = end
    if taken != len(fds):
        raise ProtocolError(f"{len(fds)} descriptors came, the messages announce {taken}")
    return found


def _read(kind: abi.Type, raw: bytes) -> abi.Struct:
    """What a later version added is left out; what an earlier one lacks is zero."""
    if len(raw) < versions.LEAST[kind]:
        raise ProtocolError(
            f"{kind.name} has a body of {len(raw)} bytes, no version's has less than {versions.LEAST[kind]}"
        )
    struct = abi.BODIES[kind]
    return struct.from_buffer_copy(raw.ljust(ctypes.sizeof(struct), b"\0"))


_Bytes16 = ctypes.c_uint8 * 16


def addr(ip: IPAddress, port: int) -> abi.Addr:
    return abi.Addr(ip=_Bytes16.from_buffer_copy(packed16(ip)), port=port)


def read_addr(raw: abi.Addr) -> tuple[IPAddress, int]:
    return address(bytes(raw.ip)), raw.port


def show(ip: IPAddress, port: int) -> str:
    """ip:port as people write it; IPv6 in brackets."""
    return f"{host(ip)}:{port}"


def show_packed(packed: bytes, port: int) -> str:
    """Like show(), of an address as messages have it; empty for one that is not there."""
    return f"{_packed_host(packed)}:{port}" if port else ""


@functools.lru_cache(4096)  # the same few hosts speak all day, and every record names three of them
def host(ip: IPAddress) -> str:
    """As it stands before a port."""
    return f"[{ip}]" if ip.version == 6 else str(ip)


@functools.lru_cache(4096)  # likewise: to make an address costs more than the rest
def _packed_host(packed: bytes) -> str:
    return host(address(packed))
