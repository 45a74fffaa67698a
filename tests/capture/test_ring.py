"""A ring buffer's pages, played by a file: what is read, in which order, and what stays."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from ambient.capture.errors import CaptureError
from ambient.capture.ring import Ring

PAGE = mmap.PAGESIZE
SIZE = PAGE  # of what is written
BUSY, DISCARDED = 1 << 31, 1 << 30


class Kernel:
    """Writes as kernel/bpf/ringbuf.c does."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + SIZE)
        self.position = 0

    def begin(self, position: int) -> None:
        """Nobody has read or written anything past this position."""
        self.position = position
        for page in (0, PAGE):
            os.pwrite(self.fd, struct.pack("Q", position), page)

    def write(self, data: bytes, flags: int = 0) -> int:
        """Where the record is, for finish()."""
        at = self.position
        row = struct.pack("II", len(data) | flags, 0) + data.ljust((len(data) + 7) // 8 * 8, b"\xff")
        for offset, byte in enumerate(row):
            os.pwrite(self.fd, bytes([byte]), 2 * PAGE + (at + offset) % SIZE)
        self.position += len(row)
        os.pwrite(self.fd, struct.pack("Q", self.position), PAGE)
        return at

    def finish(self, at: int, length: int) -> None:
        os.pwrite(self.fd, struct.pack("I", length), 2 * PAGE + at % SIZE)

    @property
    def read_until(self) -> int:
        return struct.unpack("Q", os.pread(self.fd, 8, 0))[0]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    os.close(made.fd)


@pytest.fixture
def ring(kernel: Kernel) -> Iterator[Ring]:
    made = Ring(kernel.fd, SIZE)
    yield made
    made.close()


def read(ring: Ring, limit: int = 100) -> list[bytes]:
    found: list[bytes] = []
    assert ring.read(found.append, limit) == len(found)
    return found


def test_records_come_in_order_each_once_whatever_their_length(kernel: Kernel, ring: Ring) -> None:
    rows = [b"", b"1", b"12345678", b"123456789"]
    for row in rows:
        kernel.write(row)
    assert read(ring, 3) == rows[:3]
    assert read(ring) == rows[3:]
    assert read(ring) == []
    assert kernel.read_until == kernel.position


def test_one_may_go_round_the_end(kernel: Kernel, ring: Ring) -> None:
    row = bytes(range(100))
    for begin in range(SIZE - 120, SIZE + 8, 8):
        kernel.begin(begin + 3 * SIZE)
        kernel.write(row)
        kernel.write(b"next")
        assert read(ring) == [row, b"next"]


def test_what_is_still_being_written_is_awaited_and_so_is_what_comes_after_it(kernel: Kernel, ring: Ring) -> None:
    kernel.write(b"first")
    at = kernel.write(b"second", BUSY)
    kernel.write(b"third")
    assert read(ring) == [b"first"]
    assert kernel.read_until == at
    kernel.finish(at, len(b"second"))
    assert read(ring) == [b"second", b"third"]


def test_what_was_discarded_is_passed_over(kernel: Kernel, ring: Ring) -> None:
    kernel.write(b"not this", DISCARDED)
    kernel.write(b"this")
    assert read(ring) == [b"this"]
    assert kernel.read_until == kernel.position


def test_none_leaves_before_it_was_taken_and_one_that_could_not_be_is_gone(kernel: Kernel, ring: Ring) -> None:
    for row in (b"a", b"b", b"c"):
        kernel.write(row)

    def refuse(row: bytes) -> None:
        assert kernel.read_until == 0
        if row == b"b":
            raise KeyError(row)

    with pytest.raises(KeyError):
        ring.read(refuse, 3)
    assert read(ring) == [b"c"]


def test_another_reader_goes_on_where_the_last_one_stopped(kernel: Kernel) -> None:
    kernel.write(b"old")
    kernel.write(b"new")
    first = Ring(kernel.fd, SIZE)
    assert read(first, 1) == [b"old"]
    first.close()
    first.close()
    second = Ring(kernel.fd, SIZE)
    assert read(second) == [b"new"]
    second.close()


def test_what_is_no_ring_is_said(kernel: Kernel) -> None:
    with pytest.raises(CaptureError, match="cannot map a ring buffer of 8192 bytes"):
        Ring(kernel.fd, 2 * SIZE)
