"""TLS between a server's socket and a protocol above it. Knows nothing of what is said.

asyncio's own serves every use there is, and took five times the work for each message: a control plane that tells a
hundred agents something spent a third of its CPU time there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import Any, cast

RECORD_BYTES = 16 << 10  # the most that one record of TLS holds
READ_BYTES = 256 << 10  # at once
AHEAD_BYTES = 256 << 10  # unsent, then who is above us says no more
LINGER_S = (
    5.0  # for the peer to take our last words: it may be saying something, to which the kernel answers with a reset
)
log = logging.getLogger(__name__)


class Secured(asyncio.Transport, asyncio.BufferedProtocol):
    """To the protocol above it a transport; to the socket's transport a protocol."""

    def __init__(
        self, context: ssl.SSLContext, above: asyncio.Protocol, room: memoryview, *, handshake_s: float
    ) -> None:
        """above: told of the connection when the handshake is done, if it ever is. room: to read into; what is read is
        taken in before anybody else reads, so one is enough for all connections of a loop."""
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._above = above
        self._room = room
        self._met = False  # the handshake is done
        self._closing = False
        self._timer = asyncio.get_running_loop().call_later(handshake_s, self.abort)

    # What the socket tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._socket.set_write_buffer_limits(high=AHEAD_BYTES)
        # asyncio does so only for sockets that were made with TCP's number
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, _: int) -> memoryview:
        return self._room

    def buffer_updated(self, count: int) -> None:
        if self._closing:
            return
        self._incoming.write(self._room[:count])
        try:
            if not self._met:
                self._meet()
            self._take()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            log.info("%s: %s", self._socket.get_extra_info("peername"), error)
            self._end()  # with the alert that says so
            return
        self._flush()

    def eof_received(self) -> None:
        """The socket's transport closes itself."""

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._timer.cancel()
        if self._met:
            self._above.connection_lost(error)

    # What the protocol above asks for

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        self._flush()

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def close(self) -> None:
        """When all that was written is sent, or the peer has not taken it for a while."""
        if not self._closing:
            with contextlib.suppress(ssl.SSLError):  # it would like to hear the peer's last word, too
                self._tls.unwrap()
            self._end()

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._closing = True
        self._socket.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._socket.get_extra_info(name, default)

    def _meet(self) -> None:
        self._tls.do_handshake()
        self._met = True
        self._timer.cancel()
        self._above.connection_made(self)

    def _take(self) -> None:
        """What can be read; stops without the exception that says that there is no more, mostly."""
        while not self._closing:
            data = self._tls.read(RECORD_BYTES)
            if not data:
                self.close()  # the peer has said its last
                return
            self._above.data_received(data)
            if not self._incoming.pending and not self._tls.pending():
                return

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.write(self._outgoing.read())

    def _end(self) -> None:
        self._closing = True
        self._flush()
        self._socket.write_eof()
        self._socket.resume_reading()
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self.abort)
