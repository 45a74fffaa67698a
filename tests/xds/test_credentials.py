"""A server that renews its certificate while it serves."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509

from ambient.identity import roots, signing
from ambient.xds import credentials, serving

NAME = "ambient-control.ambient-system.svc"


def test_the_next_handshake_shows_the_newest_certificate_and_open_connections_go_on() -> None:
    authority = roots.found("cluster.local", datetime.now(UTC))
    signer = signing.by_root(authority)

    def issue() -> signing.ServerCertificate:
        return signer.server([NAME], timedelta(hours=1), datetime.now(UTC))

    async def admit(_: object) -> None:
        return None

    async def echo(request: bytes, _: None) -> bytes:
        return request

    async def main() -> None:
        current = issue()
        server = serving.Server({"/test.Echo/Echo": serving.unary(admit, echo)})
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await server.start(listener, credentials.Renewed(lambda: current))
        options = (("grpc.ssl_target_name_override", NAME),)
        trust = grpc.ssl_channel_credentials(authority.bundle_pem)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trust, options) as channel:
            call: Any = channel.unary_unary("/test.Echo/Echo")
            assert await call(b"before", timeout=30) == b"before"
            for _ in range(2):
                current = issue()
                shown = await asyncio.to_thread(_shown, port, authority.bundle_pem)
                assert shown == x509.load_pem_x509_certificate(current.chain_pem).serial_number
                assert await call(b"after", timeout=30) == b"after"
        await server.stop()

    asyncio.run(main())


def _shown(port: int, roots_pem: bytes) -> int:
    """The serial number of what a new client is shown and OpenSSL accepts, name included."""
    context = ssl.create_default_context(cadata=roots_pem.decode())
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    with plain, context.wrap_socket(plain, server_hostname=NAME) as wrapped:
        der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_the_file_that_openssl_wants_is_memory_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def loading(context: ssl.SSLContext, path: str) -> None:
        read.append(os.readlink(path))
        load(context, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", loading)
    signer = signing.by_root(roots.found("cluster.local", datetime.now(UTC)))
    own = signer.server([NAME], timedelta(hours=1), datetime.now(UTC))
    renewed = credentials.Renewed(lambda: own)
    renewed.refresh()
    (file,) = read
    assert file.startswith("/memfd:")
