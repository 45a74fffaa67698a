"""A BPF ring buffer (kernel/bpf/ringbuf.c): what the kernel wrote, oldest first, each record once.

Mapped here and not by libbpf, which maps what is written twice in a row, as much resident memory again, and calls back
for each record. What nobody reads stays, for whoever opens the pinned map next. One reader at a time.
"""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Callable

from ambient.capture.errors import CaptureError

# In pages: the reader's position, the writer's, and what is written. A record is its length in 4 bytes, 4 bytes of the
# kernel's own, and its bytes, up to the next multiple of 8. Positions only ever grow.
_PAGE = mmap.PAGESIZE
_HEADER = 8
_BUSY, _DISCARDED = 1 << 31, 1 << 30  # of the length: it is being written; nobody is to see it


class Ring:
    def __init__(self, map_fd: int, size: int) -> None:
        """`size`: of what is written, in bytes, a power of two."""
        self._size = size
        try:
            self._reader = mmap.mmap(map_fd, _PAGE)
            self._writer = mmap.mmap(map_fd, _PAGE + size, access=mmap.ACCESS_READ, offset=_PAGE)
        except (OSError, ValueError) as error:
            raise CaptureError(f"cannot map a ring buffer of {size} bytes: {error}") from error
        self._read = memoryview(self._reader).cast("Q")
        self._written = memoryview(self._writer)[:_PAGE].cast("Q")
        self._lengths = memoryview(self._writer)[_PAGE:].cast("I")
        self._fd = os.dup(map_fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def fileno(self) -> int:
        """Readable, for poll and asyncio, while there is something to read."""
        return self._fd

    def read(self, take: Callable[[bytes], None], limit: int) -> int:
        """Give the next records to `take`, `limit` at most; how many. One leaves the ring after `take` has returned.

        What `take` raises comes out of here, and its record is gone.
        """
        count, taken = 0, self._read[0]
        try:
            for begin, length, end in self._complete(taken, limit):
                taken = end
                if not length & _DISCARDED:
                    count += 1
                    take(self._bytes(begin, length))
        finally:
            self._settle()
            self._read[0] = taken
        return count

    def close(self) -> None:
        if self._fd >= 0:
            for view in (self._read, self._written, self._lengths):
                view.release()
            self._reader.close()
            self._writer.close()
            os.close(self._fd)
            self._fd = -1

    def _complete(self, position: int, limit: int) -> list[tuple[int, int, int]]:
        """Of the next records, up to one that is still being written: begin, length and end."""
        written = self._written[0]
        self._settle()
        found: list[tuple[int, int, int]] = []
        while position != written and len(found) < limit:
            length = self._lengths[position % self._size // 4]
            if length & _BUSY:
                break
            begin = position + _HEADER
            position = begin + (length % _DISCARDED + 7) // 8 * 8
            found.append((begin, length, position))
        self._settle()
        return found

    def _bytes(self, begin: int, length: int) -> bytes:
        begin = begin % self._size + _PAGE
        found = self._writer[begin : begin + length]
        return found if len(found) == length else found + self._writer[_PAGE : _PAGE + length - len(found)]

    def _settle(self) -> None:
        """What comes before is done before what comes after, on every processor.

        Python has no barrier by that name; but to make a call that may wait it gives its lock away, and takes it again.
        """
        self._poll.poll(0)
