"""One attachment to one engine worker: a SEQPACKET socket, messages in, messages out. No decisions.

Sending never blocks: messages of one turn of the event loop leave together, what the socket does not take waits for it.
Descriptors are duplicated when a message is queued (or given away with it), so a caller may close its own at once.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ambient.dataplane import abi, wire

log = logging.getLogger(__name__)
_ANCILLARY = socket.CMSG_SPACE(abi.FDS_MAX * array.array("i").itemsize)
_MSG_CMSG_CLOEXEC = 0x40000000  # linux/socket.h; the socket module does not name it
_PACKETS_PER_TURN = 64  # so that one busy worker does not starve the others of the event loop


class Link:
    """`on_messages` gets the messages of each packet, `on_lost` the reason, once, when the attachment is over."""

    def __init__(
        self,
        path: Path,
        on_messages: Callable[[Link, list[wire.Message]], None],
        on_lost: Callable[[Link, str], None],
    ) -> None:
        """Connect to a worker's socket. Raises OSError when nobody listens there."""
        self.path = path
        self.worker = -1
        self.version = abi.ABI_OLDEST  # what the engine speaks: until it said so, nothing is said that it may not know
        self.engine = ""  # tells its connection numbers from another engine's
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._queue: list[wire.Message] = []
        self._packets: deque[wire.Packet] = deque()
        self._flush_due = False
        self._seen = 0
        self._skipped: set[int] = set()  # types of messages of a later version
        self._acknowledge_due = False
        self._sock: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._sock.connect(os.fspath(path))
            self._sock.setblocking(False)
        except OSError:
            self._sock.close()
            raise
        self._loop.add_reader(self._sock, self._readable)

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    def peer_pid(self) -> int:
        """Whose socket this is (SO_PEERCRED of the listening process); 0 when it is over."""
        if self._sock is None:
            return 0
        credentials = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], sys.byteorder)

    def send(self, *messages: wire.Message) -> None:
        """Queue messages, but those that this engine does not know.

        They are dropped, descriptors included, when the attachment is over.
        """
        known = [message for message in messages if self._sock and wire.is_known(message, self.version)]
        for fd in [fd for message in messages if message.give and message not in known for fd in message.fds]:
            os.close(fd)
        for message in known:
            keep = message.fds and not message.give
            self._queue.append(replace(message, fds=[os.dup(fd) for fd in message.fds]) if keep else message)
        if known:
            self._flush_soon()

    def seen(self) -> None:
        """One more of this attachment's ENDED is recorded: the engine may forget it.

        It is told after all that was due when this was called, above all the writing of the journal. What leaves
        in this turn anyway may be due before that, so the acknowledgement does not go along with it.
        """
        self._seen += 1
        if not self._acknowledge_due:
            self._acknowledge_due = True
            self._loop.call_soon(self._acknowledge)

    def hush(self) -> None:
        """Hear no more of it: what is not acknowledged it tells the next agent."""
        if self._sock is not None:
            self._loop.remove_reader(self._sock)

    def close(self, reason: str = "closed by the agent") -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)
        sock.close()
        for fd in [fd for message in self._queue for fd in message.fds] + [fd for p in self._packets for fd in p.fds]:
            os.close(fd)
        self._queue.clear()
        self._packets.clear()
        self._on_lost(self, reason)

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _acknowledge(self) -> None:
        self._acknowledge_due = False
        self._queue.append(wire.Message(abi.Type.SEEN, abi.Ref(id=self._seen)))
        if not self._flush_due:
            self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        self._packets.extend(wire.pack(self._queue, self.version))
        self._queue.clear()
        self._writable()

    def _writable(self) -> None:
        if self._sock is None:
            return
        while self._packets:
            packet = self._packets[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", packet.fds))] if packet.fds else []
            try:
                self._sock.sendmsg([packet.data], rights)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock, self._writable)
                return
            except OSError as error:
                self.close(f"sending to {self.path} failed: {error}")
                return
            self._packets.popleft()
            for fd in packet.fds:
                os.close(fd)
        self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        for _ in range(_PACKETS_PER_TURN):
            if self._sock is None:
                return
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(abi.PACKET_MAX, _ANCILLARY, _MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.close(f"reading from {self.path} failed: {error}")
                return
            fds = array.array("i")
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            if not data:
                self.hush()
                self._loop.call_soon(self.close, "the engine closed it")  # what it told is acknowledged before that
                return
            try:
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    raise wire.ProtocolError("the packet does not fit what engine/abi.h allows")
                found = wire.unpack(data, fds)
            except wire.ProtocolError as error:
                with contextlib.suppress(OSError):
                    for fd in fds:
                        os.close(fd)
                self.close(f"{self.path}: {error}")
                return
            for fd in found.unread:
                os.close(fd)
            self._tell_skipped(found.skipped)
            self._on_messages(self, found.messages)

    def _tell_skipped(self, types: list[int]) -> None:
        if new := set(types) - self._skipped:
            self._skipped |= new
            log.info("messages of types %s from %s are of a later version: skipped", sorted(new), self.path)


def broadcast(links: Sequence[Link], *messages: wire.Message) -> None:
    for link in links:
        link.send(*messages)
