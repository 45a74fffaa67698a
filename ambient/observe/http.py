"""A small HTTP/1.1 server for metrics and probes: GET and HEAD, one request a connection. Pages are given to it.

Whoever can reach the node can reach it, so every request is bounded in bytes and time, and connections in number.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

HEAD_MAX = 8 * 1024  # bytes of request line and headers; Prometheus sends some 300
READ_S = 5.0  # from accept to the end of the headers
PAGE_S = 10.0  # for the page to be made: Prometheus gives up after 10 s by default
WRITE_S = 10.0
CLIENTS_MAX = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    body: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


class HttpServer:
    """Serves `pages` on one port of the netns it is started in, until close()."""

    def __init__(
        self,
        port: int,
        pages: Mapping[str, Callable[[], Awaitable[Page]]],
        *,
        address: str = "",
        read_s: float = READ_S,
    ) -> None:
        """address: to listen on; empty: all there are."""
        self._wanted = port
        self._address = address
        self._pages = pages
        self._read_s = read_s
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._reading: dict[asyncio.Task[None], None] = {}  # of them, who has not said what it wants; oldest first

    @property
    def port(self) -> int:
        """The port listened on: what was asked for, or the kernel's choice where that was 0."""
        assert self._server is not None, "not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Raises OSError, naming the port, when it is taken."""
        self._server = await asyncio.start_server(
            self._client, sock=listen(self._wanted, self._address), limit=HEAD_MAX
        )

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = _this_task()
        if len(self._clients) >= CLIENTS_MAX:
            self._make_room()
        self._clients.add(task)
        try:
            if len(self._clients) <= CLIENTS_MAX:
                self._reading[task] = None
                method, page = await self._page(reader)
                await _send(writer, page, with_body=method != "HEAD")
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # it went away, was too slow, or we are closing: its connection ends either way
        finally:
            self._clients.discard(task)
            self._reading.pop(task, None)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # it takes nothing: do not wait for it
            else:
                writer.close()

    def _make_room(self) -> None:
        """Who keeps a place and says nothing loses it to who comes now, and may be kubelet."""
        silent = next(iter(self._reading), None)
        if silent is not None:
            del self._reading[silent]
            self._clients.discard(silent)
            silent.cancel()

    async def _page(self, reader: asyncio.StreamReader) -> tuple[str, Page]:
        try:
            async with asyncio.timeout(self._read_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return "GET", _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("closed before its request was complete") from error
        self._reading.pop(_this_task(), None)
        match head.split(b"\r\n", 1)[0].decode("latin-1").split(" "):
            case [method, target, "HTTP/1.0" | "HTTP/1.1"]:
                return method, await self._make(method, target.partition("?")[0])
        return "GET", _error(HTTPStatus.BAD_REQUEST)

    async def _make(self, method: str, path: str) -> Page:
        if method not in ("GET", "HEAD"):
            return _error(HTTPStatus.METHOD_NOT_ALLOWED)
        make = self._pages.get(path)
        if make is None:
            return _error(HTTPStatus.NOT_FOUND, f"there are: {' '.join(sorted(self._pages))}")
        try:
            async with asyncio.timeout(PAGE_S):
                return await make()
        except TimeoutError:
            return _error(HTTPStatus.GATEWAY_TIMEOUT, f"the page was not ready within {PAGE_S:.0f} s")
        except Exception:  # ours: the client is told, the agent goes on
            log.exception("page %s failed", path)
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "see the agent's log")


def _error(status: HTTPStatus, hint: str = "") -> Page:
    return Page(f"{status.phrase.lower()}{': ' + hint if hint else ''}\n", status)


async def _send(writer: asyncio.StreamWriter, page: Page, *, with_body: bool) -> None:
    body = page.body.encode()
    head = (
        f"HTTP/1.1 {page.status} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    writer.transport.set_write_buffer_limits(high=0)  # drain() waits for the last byte: what is left then is dropped
    writer.write(head.encode() + (body if with_body else b""))
    async with asyncio.timeout(WRITE_S):
        await writer.drain()


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


def listen(port: int, address: str = "") -> socket.socket:
    """A listening socket on an address, or on all of both families where there are both.

    Raises OSError, naming the port.
    """
    try:
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, port), family=family)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on port {port}: {error.strerror}") from error
