"""The frames that a control plane and its agents exchange all day long: DATA, and the credit for it. Sans-I/O.

For these h2 takes twenty times what they need. All others are h2's, and whatever is unusual about these.
Source: RFC 9113, sections 4.1, 6.1 and 6.9.
"""

from __future__ import annotations

import struct

PREFACE_BYTES = 24  # with which a client begins
PAYLOAD_MAX = 1 << 14  # as long as nobody has said that he takes more
_HEAD = struct.Struct(">BHBBI")  # length (24 bits), type, flags, stream
HEAD_BYTES = _HEAD.size
_DATA, _WINDOW_UPDATE = 0, 8


def data(number: int, payload: bytes) -> bytes:
    """A DATA frame of a stream, not its last."""
    return _HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, _DATA, 0, number) + payload


def credit(number: int, count: int) -> bytes:
    """A WINDOW_UPDATE frame; number 0: for the connection."""
    return _HEAD.pack(0, 4, _WINDOW_UPDATE, 0, number) + count.to_bytes(4, "big")


def plain_data(frame: bytes) -> tuple[int, bytes] | None:
    """Stream and payload of a whole DATA frame without padding and not the last; None: it is something else."""
    if len(frame) < HEAD_BYTES:
        return None
    _, _, kind, flags, number = _HEAD.unpack_from(frame)
    return None if kind != _DATA or flags else (number & 0x7FFF_FFFF, frame[HEAD_BYTES:])


class TooLong(Exception):
    """A frame has more payload than anybody has agreed to."""


class Cutter:
    """Cuts what a client says into frames; its preface comes in pieces, as it came."""

    def __init__(self) -> None:
        self._rest = b""
        self._preface = PREFACE_BYTES  # that are still to come

    def feed(self, piece: bytes) -> list[bytes]:
        """What is whole now. Raises TooLong before what is too long was kept."""
        rest = self._rest + piece if self._rest else piece
        found = []
        while rest:
            if self._preface:
                size = min(self._preface, len(rest))
                self._preface -= size
            elif len(rest) < HEAD_BYTES:
                break
            else:
                size = HEAD_BYTES + int.from_bytes(rest[:3], "big")
                if size > HEAD_BYTES + PAYLOAD_MAX:
                    raise TooLong(f"a frame of {size} bytes; {HEAD_BYTES + PAYLOAD_MAX} at most are taken")
                if len(rest) < size:
                    break
            found.append(rest[:size])
            rest = rest[size:]
        self._rest = rest
        return found
