"""Bytes that a receiver can check without having them: block number n is its number, then the same filling."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 1 << 16
FILLING = bytes(range(256)) * (BLOCK // 256)


def blocks(size: int) -> Iterator[bytes]:
    """`size` bytes; each block differs from every other, so that a lost or doubled one shows."""
    number = 0
    while size > 0:
        block = number.to_bytes(8) + FILLING[8:]
        yield block[:size]
        size -= len(block)
        number += 1


class Checker:
    """Takes a stream of the pattern in whatever pieces and says where it first differs."""

    def __init__(self) -> None:
        self.received = 0
        self.wrong_at: int | None = None

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data) and self.wrong_at is None:
            number, offset = divmod(self.received + at, BLOCK)
            expected = (number.to_bytes(8) + FILLING[8:])[offset : offset + len(data) - at]
            if data[at : at + len(expected)] != expected:
                self.wrong_at = self.received + at
            at += len(expected)
        self.received += len(data)
