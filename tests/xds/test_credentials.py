"""A server that renews its certificate while it serves."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509

from ambient.identity import roots, signing
from ambient.xds import credentials

NAME = "ambient-control.ambient-system.svc"


def test_the_next_handshake_shows_the_newest_certificate_and_open_connections_go_on() -> None:
    authority = roots.found("cluster.local", datetime.now(UTC))
    signer = signing.by_root(authority)

    def issue() -> signing.ServerCertificate:
        return signer.server([NAME], timedelta(hours=1), datetime.now(UTC))

    async def echo(request: bytes, _: object) -> bytes:
        return request

    async def main() -> None:
        current = issue()
        server = grpc.aio.server()
        handlers: Any = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        port = server.add_secure_port("127.0.0.1:0", credentials.renewed(lambda: current))
        await server.start()
        options = (("grpc.ssl_target_name_override", NAME),)
        trust = grpc.ssl_channel_credentials(authority.bundle_pem)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trust, options) as channel:
            call: Any = channel.unary_unary("/test.Echo/Echo")
            assert await call(b"before", timeout=2) == b"before"
            for _ in range(2):
                current = issue()
                shown = await asyncio.to_thread(_shown, port, authority.bundle_pem)
                assert shown == x509.load_pem_x509_certificate(current.chain_pem).serial_number
                assert await call(b"after", timeout=2) == b"after"
        await server.stop(None)

    asyncio.run(main())


def _shown(port: int, roots_pem: bytes) -> int:
    """The serial number of what a new client is shown and OpenSSL accepts, name included."""
    context = ssl.create_default_context(cadata=roots_pem.decode())
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=2)
    with plain, context.wrap_socket(plain, server_hostname=NAME) as wrapped:
        der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_grpc_is_told_of_a_certificate_once_and_with_nobody_else_near(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    signer = signing.by_root(roots.found("cluster.local", datetime.now(UTC)))
    first, second = (signer.server([NAME], timedelta(hours=1), datetime.now(UTC)) for _ in range(2))
    current = first
    renewal = credentials._Renewal(lambda: current)
    assert renewal.fetch() is None
    assert now == 0
    current = second
    assert renewal.fetch() is not None
    told_at = now
    assert told_at >= credentials.QUIET_S  # those told "the same" before have begun by now
    assert renewal.fetch() is None
    assert now >= told_at + credentials.QUIET_S  # by now it has been taken over
    before = now
    assert renewal.fetch() is None
    assert now == before
