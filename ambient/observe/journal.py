"""One JSON line per record on a stream, without ever making the data path wait for whoever reads it.

Records of one turn of the event loop leave together at its end, before the engine is told that they were seen: a killed
agent loses none. What the stream does not take waits in a bounded backlog; beyond that it is dropped, counted, and the
journal says so itself when the reader is back.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import select
import stat
from typing import IO

BACKLOG_MAX = 8 * 1024 * 1024  # bytes kept for a reader that stalls: some 10,000 records
WRITE_MAX = select.PIPE_BUF  # a pipe takes this much whole, or not at all: lines of several writers do not mix
FILE_WRITE_MAX = 64 * 1024  # a file takes anything


class Journal:
    """Writes to a stream it does not own (the agent's stdout); close() writes what is left and lets go."""

    def __init__(self, stream: IO[str] | IO[bytes] | int, *, backlog_max: int = BACKLOG_MAX) -> None:
        self.dropped = 0  # records lost since the start
        self._untold = 0  # of these, the ones the journal has not mentioned yet
        self._fd = fd = stream if isinstance(stream, int) else stream.fileno()
        self._backlog: collections.deque[bytes] = collections.deque()
        self._waiting = 0  # bytes in the backlog
        self._backlog_max = backlog_max
        self._loop: asyncio.AbstractEventLoop | None = None  # that watches the stream
        self._flush_due = False
        self._write_max = FILE_WRITE_MAX if stat.S_ISREG(os.fstat(fd).st_mode) else WRITE_MAX
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """A record, newline included; it leaves at the end of this turn of the loop, at once where none runs.

        Never blocks and never raises for the stream's sake.
        """
        if self._waiting + len(line) > self._backlog_max:
            self._lose(1)
            return
        self._push(line)
        if self._flush_due:
            return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
            self._flush_due = True
        except RuntimeError:  # no loop
            self.flush()

    def flush(self) -> None:
        """Write what the stream takes now; the rest when the event loop sees it writable."""
        self._flush_due = False
        while self._backlog and self._writable():
            chunk = self._chunk()
            try:
                written = os.write(self._fd, chunk)
            except BlockingIOError:
                self._unshift(chunk)
                break
            except OSError:  # reader gone, disk full: nobody can be told here but the counter
                self._lose(chunk.count(b"\n"))
                continue
            self._unshift(chunk[written:])
            if self._untold and not self._backlog:
                self._push(json.dumps({"type": "dropped", "records": self._untold}).encode() + b"\n")
                self._untold = 0
        self._await_writable(bool(self._backlog))

    def close(self, deadline_s: float = 2.0) -> None:
        """Give the reader this long to take what is left."""
        while self._backlog and self._poll.poll(deadline_s * 1000):
            before = self._waiting
            self.flush()
            if self._waiting == before:
                break
        self._await_writable(False)
        self._lose(sum(line.count(b"\n") for line in self._backlog))
        self._backlog.clear()
        self._waiting = 0

    def _writable(self) -> bool:
        return bool(self._poll.poll(0))  # POLLERR and POLLHUP too: the write then says what is wrong

    def _chunk(self) -> bytes:
        """As many whole lines as one atomic write holds, at least one."""
        lines = [self._pop()]
        size = len(lines[0])
        while self._backlog and size + len(self._backlog[0]) <= self._write_max:
            lines.append(self._pop())
            size += len(lines[-1])
        return b"".join(lines)

    def _push(self, line: bytes) -> None:
        self._backlog.append(line)
        self._waiting += len(line)

    def _pop(self) -> bytes:
        line = self._backlog.popleft()
        self._waiting -= len(line)
        return line

    def _unshift(self, rest: bytes) -> None:
        if rest:
            self._backlog.appendleft(rest)
            self._waiting += len(rest)

    def _lose(self, records: int) -> None:
        self.dropped += records
        self._untold += records

    def _await_writable(self, wanted: bool) -> None:
        if wanted and self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:  # no loop: the next write() tries again
                return
            self._loop.add_writer(self._fd, self.flush)
        elif not wanted and self._loop is not None:
            self._loop.remove_writer(self._fd)
            self._loop = None
