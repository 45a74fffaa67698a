"""The HTTP server with real clients over loopback, polite and not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest

from ambient.observe import http
from ambient.observe.http import HttpServer, Page


async def _metrics() -> Page:
    return Page("a 1\n")


async def _not_ready() -> Page:
    return Page("not ready\n", HTTPStatus.INTERNAL_SERVER_ERROR)


async def _broken() -> Page:
    raise KeyError("oops")


async def _long() -> Page:
    return Page("a line\n" * 20_000)


async def _slow() -> Page:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


PAGES = {"/metrics": _metrics, "/healthz/ready": _not_ready, "/broken": _broken, "/slow": _slow, "/long": _long}


def with_server(work: Callable[[int], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        server = HttpServer(0, PAGES, **options)
        await server.start()
        try:
            async with asyncio.timeout(10):
                return await work(server.port)
        finally:
            await server.close()

    return asyncio.run(run())


async def exchange(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    try:
        return await reader.read()
    except ConnectionResetError:  # it closed while we were still writing
        return b""
    finally:
        writer.close()


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        pytest.param(get("/metrics"), b"200 OK", b"a 1\n", id="a page"),
        pytest.param(get("/metrics?x=1"), b"200 OK", b"a 1\n", id="with a query"),
        pytest.param(get("/metrics", "HEAD"), b"200 OK", b"", id="head"),
        pytest.param(b"GET /metrics HTTP/1.0\r\n\r\n", b"200 OK", b"a 1\n", id="1.0"),
        pytest.param(get("/healthz/ready"), b"500 Internal Server Error", b"not ready\n", id="a page that is no 200"),
        pytest.param(get("/"), b"404 Not Found", b"not found: there are: ", id="no such page"),
        pytest.param(get("/metrics", "POST"), b"405 Method Not Allowed", b"method not allowed\n", id="post"),
        pytest.param(get("/broken"), b"500 Internal Server Error", b"internal server error: see", id="a page's bug"),
        pytest.param(b"hello\r\n\r\n", b"400 Bad Request", b"bad request\n", id="garbage"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\n", b"400 Bad Request", b"bad request\n", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\r\n\r\n", b"400 Bad Request", b"bad request\n", id="TLS"),
        pytest.param(get("/" + "x" * 20_000), b"431 ", b"request header fields too large\n", id="an endless line"),
    ],
)
def test_a_request_gets_what_it_deserves(request_: bytes, status: bytes, body: bytes) -> None:
    head, _, found = with_server(lambda port: exchange(port, request_)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in head
    assert found.startswith(body)
    assert bool(found) == bool(body)


def test_both_families_are_served_on_one_port() -> None:
    assert b"a 1\n" in with_server(lambda port: exchange(port, get("/metrics"), "::1"))


def test_a_long_page_is_whole_for_a_client_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow client has not taken of it must not be cut off when the rest is in the server's hands."""
    listen = http.listen

    def narrow(port: int, address: str) -> socket.socket:
        sock = listen(port, address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that the page leaves in small parts
        return sock

    monkeypatch.setattr(http, "listen", narrow)

    async def slowly(port: int) -> bytes:
        loop, said = asyncio.get_running_loop(), b""
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, get("/long"))
            while part := await loop.sock_recv(sock, 512):
                said += part
                for _ in range(3):
                    await asyncio.sleep(0)
        return said

    assert len(with_server(slowly).partition(b"\r\n\r\n")[2]) == 7 * 20_000


def test_a_client_that_sends_half_a_request_is_let_go_in_time() -> None:
    assert with_server(lambda port: exchange(port, b"GET /metrics HT"), read_s=0.05) == b""


def test_a_page_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAGE_S", 0.05)
    assert b"504 Gateway Timeout" in with_server(lambda port: exchange(port, get("/slow")))


def test_clients_beyond_the_limit_are_closed_and_the_others_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CLIENTS_MAX", 1)

    async def work(port: int) -> None:
        _, first = await asyncio.open_connection("127.0.0.1", port)
        first.write(get("/slow"))
        async with asyncio.timeout(30):
            while await exchange(port, get("/metrics")) != b"":  # noqa: ASYNC110 (until the first is being served)
                await asyncio.sleep(0)
        first.close()

    with_server(work)


def test_clients_that_say_nothing_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe must be answered whoever else has connected, or kubelet ends what is well."""
    monkeypatch.setattr(http, "CLIENTS_MAX", 3)

    async def work(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        for _ in range(3):
            assert b"a 1\n" in await exchange(port, get("/metrics"))
        assert await silent[0][0].read() == b"", "the oldest is closed first"
        for _, writer in silent:
            writer.close()

    with_server(work)


def test_it_listens_where_it_is_told_and_nowhere_else() -> None:
    async def work(port: int) -> None:
        assert b"a 1\n" in await exchange(port, get("/metrics"), "127.0.0.2")
        for other in ("127.0.0.1", "::1"):
            with pytest.raises(OSError, match="Connect call failed"):
                await exchange(port, get("/metrics"), other)

    with_server(work, address="127.0.0.2")


def test_a_thousand_rude_clients_leave_no_descriptor_behind() -> None:
    async def work(port: int) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(1000):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write([b"", b"GET /", get("/metrics"), b"\xff\r\n\r\n"][number % 4])
            writer.transport.abort()
        async with asyncio.timeout(30):
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 (the kernel has no event for it)
                await asyncio.sleep(0.01)

    with_server(work)


def test_a_port_that_is_taken_is_named() -> None:
    async def work(port: int) -> None:
        with pytest.raises(OSError, match=f"cannot listen on port {port}: Address already in use"):
            await HttpServer(port, {}).start()

    with_server(work)
