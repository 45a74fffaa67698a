"""What can be read on the underlay: a packet socket on a node's bridge port. Only listens.

A lost frame is an error: "it was not seen" proves nothing when something was missed.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ambient.lab.client import Lab
from ambient.lab.errors import LabError
from ambient.model.mesh import IPAddress

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
BUFFER = 64 << 20  # bytes: seconds of a demo's traffic, should this thread not get a turn
FRAME_MAX = 1 << 17  # veth carries segments of up to 64 KiB (GSO) in one frame
KEPT = 8 << 20  # bytes kept per direction of a connection
SYN = 0x02
CLOSE = b"wiretap closes"  # the last frame: our own, of an experimental EtherType, sent by close()


@dataclass(frozen=True, slots=True, order=True)
class Direction:
    """One way of one TCP connection."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int

    def __str__(self) -> str:
        return f"{_host(self.source)}:{self.source_port} > {_host(self.destination)}:{self.destination_port}"


class Segment(NamedTuple):
    way: Direction
    number: int  # TCP's, of the first byte
    opens: bool  # SYN: what follows is another connection's
    payload: bytes


class Stream:
    """What was said in one direction. Segments are put where they belong: TCP sends some again, CPUs swap some."""

    def __init__(self) -> None:
        self.said = bytearray()  # what is missing is zeros
        self._first: int | None = None  # the number of its first byte

    def add(self, segment: Segment) -> None:
        number = segment.number + segment.opens
        if segment.opens or self._first is None:
            self._first = number - len(self.said)
        at = (number - self._first + 2**31) % 2**32 - 2**31
        if at < 0 and -at <= KEPT:
            self.said[:0] = bytes(-at)
            self._first += at
            at = 0
        if not 0 <= at < KEPT:
            return
        payload = segment.payload[: KEPT - at]
        self.said += bytes(max(0, at - len(self.said)))
        self.said[at : at + len(payload)] = payload


class Wiretap:
    """Collects TCP payload from the start of the `with` block to its end; to be asked after that."""

    def __init__(self, lab: Lab, node: str) -> None:
        self._lab = lab
        self._node = node
        self.seen: dict[Direction, bytearray] = {}
        self._streams: dict[Direction, Stream] = {}

    def __enter__(self) -> Wiretap:
        with self._lab.underlay(self._node) as port:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            # A second one, because a packet socket is not shown what it sends itself.
            self._closer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.bind((port, ETH_P_ALL))
        self._closer.bind((port, 0))
        self._thread = threading.Thread(target=self._listen, name=f"wiretap {self._node}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """All that was on the wire before is collected: the socket is a queue, and our own frame is its last."""
        self._closer.send(b"\xff" * 12 + b"\x88\xb5" + CLOSE)
        self._thread.join()
        _, dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()
        self._closer.close()
        if dropped:
            raise LabError(f"the wiretap on {self._node} lost {dropped} frames: what it did not see proves nothing")

    def _listen(self) -> None:
        while True:
            frame = self._socket.recv(FRAME_MAX)
            if frame[14:].startswith(CLOSE):
                return
            if (found := segment(frame)) is not None:
                stream = self._streams.setdefault(found.way, Stream())
                stream.add(found)
                self.seen[found.way] = stream.said

    def said(self, text: bytes) -> Iterator[Direction]:
        """Where these bytes can be read."""
        return (direction for direction, payload in sorted(self.seen.items(), key=str) if text in payload)

    def ports(self) -> set[int]:
        """The ports TCP connections were made to: of each connection the lower one, as clients' are ephemeral."""
        return {min(row.source_port, row.destination_port) for row in self.seen}


def segment(frame: bytes) -> Segment | None:
    """The TCP segment of an Ethernet frame; None for anything else."""
    kind = int.from_bytes(frame[12:14])
    if kind == 0x0800 and frame[23] == socket.IPPROTO_TCP:
        start = 14 + (frame[14] & 0x0F) * 4
        end = 14 + int.from_bytes(frame[16:18])  # what follows is padding
        source: IPAddress = ipaddress.IPv4Address(frame[26:30])
        destination: IPAddress = ipaddress.IPv4Address(frame[30:34])
    elif kind == 0x86DD and frame[20] == socket.IPPROTO_TCP:
        start, end = 54, 54 + int.from_bytes(frame[18:20])
        source, destination = ipaddress.IPv6Address(frame[22:38]), ipaddress.IPv6Address(frame[38:54])
    else:
        return None
    source_port, destination_port, number = struct.unpack_from("!HHI", frame, start)
    payload = start + (frame[start + 12] >> 4) * 4
    opens = bool(frame[start + 13] & SYN)
    return Segment(Direction(source, source_port, destination, destination_port), number, opens, frame[payload:end])


def _host(ip: IPAddress) -> str:
    return f"[{ip}]" if ip.version == 6 else str(ip)
