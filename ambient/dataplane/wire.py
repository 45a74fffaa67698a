"""Messages to packets and back: the framing of engine/abi.h. Sans I/O.

A packet carries at most PACKET_MAX bytes and FDS_MAX descriptors; a message never spans two packets.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ambient.dataplane import abi
from ambient.model.mesh import IPAddress, address, packed16

_HEAD = ctypes.sizeof(abi.Head)


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


def pack(messages: Sequence[Message]) -> Iterator[Packet]:
    """As few packets as the limits allow, in order. Raises ValueError for a message that fits no packet."""
    packet = Packet()
    for message in messages:
        body = bytes(message.body) if message.body is not None else b""
        size = _HEAD + len(body) + len(message.tail)
        padding = -size % 8
        if size + padding > abi.PACKET_MAX or len(message.fds) > abi.FDS_MAX:
            raise ValueError(f"{message.type.name} of {size} bytes and {len(message.fds)} descriptors fits no packet")
        if len(packet.data) + size + padding > abi.PACKET_MAX or len(packet.fds) + len(message.fds) > abi.FDS_MAX:
            yield packet
            packet = Packet()
        packet.data += bytes(abi.Head(type=message.type, fds=len(message.fds), size=size + padding))
        packet.data += body
        packet.data += message.tail
        packet.data += bytes(padding)
        packet.fds += message.fds
    if packet.data:
        yield packet


def unpack(data: bytes, fds: Sequence[int]) -> list[Message]:
    """The messages of one packet of the engine. Raises ProtocolError; the caller then closes the descriptors."""
    messages = []
    offset = taken = 0
    while offset < len(data):
        if len(data) - offset < _HEAD:
            raise ProtocolError(f"{len(data) - offset} bytes where a message head was expected")
        head = abi.Head.from_buffer_copy(data, offset)
        try:
            kind = abi.Type(head.type)
            body_type = abi.BODIES[kind]
        except (ValueError, KeyError):
            raise ProtocolError(f"message type {head.type} is not one an engine sends") from None
        body_size = ctypes.sizeof(body_type)
        if head.size < _HEAD + body_size or head.size % 8 or offset + head.size > len(data):
            raise ProtocolError(f"{kind.name} says it has {head.size} bytes, {len(data) - offset} are there")
        if taken + head.fds > len(fds):
            raise ProtocolError(f"{kind.name} announces {head.fds} descriptors, {len(fds) - taken} came")
        start = offset + _HEAD
        messages.append(
            Message(
                kind,
                body_type.from_buffer_copy(data, start),
                data[start + body_size : offset + head.size],
                tuple(fds[taken : taken + head.fds]),
            )
        )
        taken += head.fds
        offset += head.size
    if taken != len(fds):
        raise ProtocolError(f"{len(fds)} descriptors came, the messages announce {taken}")
    return messages


_Bytes16 = ctypes.c_uint8 * 16


def addr(ip: IPAddress, port: int) -> abi.Addr:
    return abi.Addr(ip=_Bytes16.from_buffer_copy(packed16(ip)), port=port)


def read_addr(raw: abi.Addr) -> tuple[IPAddress, int]:
    return address(bytes(raw.ip)), raw.port


def show(ip: IPAddress, port: int) -> str:
    """ip:port as people write it; IPv6 in brackets."""
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def show_packed(packed: bytes, port: int) -> str:
    """Like show(), of an address as messages have it; empty for one that is not there."""
    return f"{_host(packed)}:{port}" if port else ""


@functools.lru_cache(4096)  # the same few hosts speak all day, and every record names three of them
def _host(packed: bytes) -> str:
    ip = address(packed)
    return f"[{ip}]" if ip.version == 6 else str(ip)
