"""The client against real sockets: whom it talks to, as whom, and what it makes of answers."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from lightkube.resources.core_v1 import Namespace

from ambient.sources.kubernetes.client import ApiError, Client, NoCluster, connect

from .server import STREAMING, THE_END, Headers, Piece, Script, Server, answer, chunk

HELLO = answer({"hello": 1})


def a_kubeconfig(place: Path, server: str = "http://127.0.0.1:1", **user: Any) -> Path:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "t0ken"}}],
    }
    path = place / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def talking(script: Script, place: Path, test: Callable[[Client], Awaitable[None]]) -> None:
    """The test with a client of a server that plays the script."""

    async def run() -> None:
        async with Server(script) as url:
            client = connect(a_kubeconfig(place, url))
            try:
                await asyncio.wait_for(test(client), 10)
            finally:
                await client.close()

    asyncio.run(run())


# --- whom and as whom


def test_requests_carry_the_token_and_say_who_asks(tmp_path: Path) -> None:
    seen: list[tuple[str, Headers]] = []

    def script(path: str, headers: Headers) -> Sequence[Piece]:
        seen.append((path, headers))
        return [HELLO]

    async def test(client: Client) -> None:
        assert json.loads(await client.read("/api/v1/pods", {"limit": "5", "continue": "a/b="})) == {"hello": 1}

    talking(script, tmp_path, test)
    ((path, headers),) = seen
    assert path == "/api/v1/pods?limit=5&continue=a%2Fb%3D"
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("ambient-control/")


def test_typed_calls_go_the_same_way(tmp_path: Path) -> None:
    def script(path: str, headers: Headers) -> Sequence[Piece]:
        assert (path, headers["authorization"]) == ("/api/v1/namespaces/shop", "Bearer t0ken")
        return [answer({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})]

    async def test(client: Client) -> None:
        found = await client.get(Namespace, "shop")
        assert found.metadata
        assert found.metadata.name == "shop"

    talking(script, tmp_path, test)


def a_service_account(place: Path, monkeypatch: pytest.MonkeyPatch, url: str, ca_pem: bytes) -> Path:
    account = place / "serviceaccount"
    account.mkdir()
    (account / "token").write_text("first")
    (account / "namespace").write_text("ambient-system")
    (account / "ca.crt").write_bytes(ca_pem)
    _, _, host_port = url.partition("://")
    host, _, port = host_port.rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    return account


def a_certificate() -> tuple[bytes, bytes]:
    """Self-signed, for 127.0.0.1: certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")]), datetime.now(UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    )
    builder = builder.add_extension(alternative, critical=False).add_extension(x509.BasicConstraints(True, None), True)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    raw = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return pem, key.private_bytes(*raw)


def test_in_a_pod_the_servers_certificate_is_checked_and_a_token_that_was_replaced_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem, key = a_certificate()
    (tmp_path / "server.pem").write_bytes(pem + key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem")
    accepted, seen = ["first"], []

    def script(_: str, headers: Headers) -> Sequence[Piece]:
        seen.append(headers["authorization"].removeprefix("Bearer "))
        known = seen[-1] in accepted
        return [HELLO if known else answer({"message": "Unauthorized"}, "401 Unauthorized")]

    async def run() -> None:
        async with Server(script, tls) as url:
            account = a_service_account(tmp_path, monkeypatch, url, pem)
            client = connect(service_account=account)
            assert client.namespace == "ambient-system"
            await client.read("/", {})
            (account / "token").write_text("second\n")
            accepted[:] = ["second"]
            await client.read("/", {})
            async with client.stream("/", {}, silence_s=5) as pieces:
                assert [piece async for piece in pieces] == [b'{"hello": 1}']
            accepted.clear()
            with pytest.raises(ApiError, match="401 Unauthorized"):
                await client.read("/", {})
            await client.close()
            (account / "ca.crt").write_bytes(a_certificate()[0])
            stranger = connect(service_account=account)
            with pytest.raises(ApiError, match="certificate verify failed"):
                await stranger.read("/", {})
            await stranger.close()

    asyncio.run(run())
    assert seen == ["first", "first", "second", "second", "second", "second"]


def test_a_token_that_is_gone_is_an_error_of_the_request(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    path = a_kubeconfig(tmp_path, tokenFile=str(tmp_path / "token"))
    (tmp_path / "token").unlink()

    async def run() -> None:
        client = connect(path)
        with pytest.raises(ApiError, match="not found"):
            await client.read("/", {})
        await client.close()

    asyncio.run(run())


NOWHERE: dict[str, tuple[str | None, str]] = {
    "no file": (None, "ConfigError: Configuration file .* not found"),
    "no YAML": ("a: [", "ParserError"),
    "no kubeconfig": ("[]", "expected a kubeconfig, `kubectl config view` shows one; AttributeError"),
    "no context": ("{clusters: [], contexts: [], users: []}", "No current context"),
    "no user": (
        "{current-context: c, contexts: [{name: c, context: {cluster: k}}],"
        " clusters: [{name: k, cluster: {}}], users: []}",
        "names no user",
    ),
    "no address": (
        "{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}],"
        " clusters: [{name: k, cluster: {server: 'http://host:port'}}], users: [{name: u, user: {}}]}",
        "InvalidURL",
    ),
    "an unknown cluster": (
        "{current-context: c, contexts: [{name: c, context: {cluster: x}}], clusters: [], users: []}",
        "KeyError: 'x'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "text"), NOWHERE.values(), ids=NOWHERE.keys())
def test_without_a_usable_configuration_it_is_said_where_one_was_looked_for(
    tmp_path: Path, content: str | None, text: str
) -> None:
    if content:
        (tmp_path / "kubeconfig").write_text(content)
    with pytest.raises(NoCluster, match=text):
        connect(tmp_path / "kubeconfig")


def test_outside_of_a_pod_the_environment_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(a_kubeconfig(tmp_path)))
    assert connect(service_account=tmp_path / "none").server == "http://127.0.0.1:1"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    with pytest.raises(NoCluster, match=r"none, \$KUBECONFIG or ~/.kube/config"):
        connect(service_account=tmp_path / "none")


def test_half_a_service_account_is_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = a_service_account(tmp_path, monkeypatch, "https://127.0.0.1:1", a_certificate()[0])
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(NoCluster, match="KUBERNETES_SERVICE_HOST"):
        connect(service_account=account)


# --- answers

REFUSALS = {
    "a status": (
        answer({"kind": "Status", "message": "pods is forbidden", "code": 403}, "403 Forbidden"),
        "403 pods is forbidden",
        403,
        0,
    ),
    "a proxy's page": (answer(b"<html>", "502 Bad Gateway", "text/html"), "502 Bad Gateway", 502, 0),
    "too much": (answer({"message": "slow down"}, "429 Too Many Requests", Retry_After="3"), "429 slow down", 429, 3),
    "a date": (answer(b"", "503 Unavailable", Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"), "503 Unavailable", 503, 0),
    "a redirection": (answer(b"", "302 Found", Location="/other"), "302 Found", 302, 0),
}


@pytest.mark.parametrize(("reply", "text", "status", "after"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_says_what_the_server_said(
    tmp_path: Path, reply: bytes, text: str, status: int, after: float
) -> None:
    async def test(client: Client) -> None:
        with pytest.raises(ApiError) as caught:
            await client.read("/", {})
        assert str(caught.value) == f"{client.server}: {text}"
        assert (caught.value.status, caught.value.retry_after) == (status, after)

    talking(lambda *_: [reply], tmp_path, test)


BROKEN: dict[str, list[Piece]] = {
    "hung up at once": [None],
    "hung up in the headers": [b"HTTP/1.1 200 OK\r\nContent-", None],
    "hung up in a chunk": [STREAMING, chunk(b'{"a":1}\n'), b"40\r\nhalf of it", None],
    "hung up between chunks": [STREAMING, chunk(b'{"a":1}\n'), 0.05, None],
    "no HTTP": [b"SSH-2.0-OpenSSH\r\n\r\n"],
    "silent": [STREAMING, 10.0],
    "a bad chunk": [STREAMING, b"zz\r\n"],
}


async def read_to_the_end(client: Client) -> None:
    async with client.stream("/", {}, silence_s=0.3) as found:
        async for _ in found:
            pass


@pytest.mark.parametrize("pieces", BROKEN.values(), ids=BROKEN.keys())
def test_a_connection_that_breaks_is_no_answer(tmp_path: Path, pieces: list[Piece]) -> None:
    async def test(client: Client) -> None:
        with pytest.raises(ApiError) as caught:
            await read_to_the_end(client)
        assert caught.value.status == 0
        assert str(caught.value).startswith(f"{client.server}: ")

    talking(lambda *_: pieces, tmp_path, test)


def test_a_server_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    async def run() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            client = connect(a_kubeconfig(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}"))
            with pytest.raises(ApiError, match="connection"):
                await client.read("/", {})
            await client.close()

    asyncio.run(run())


def test_a_stream_comes_as_it_is_sent_and_its_connection_notices_a_peer_that_vanished(tmp_path: Path) -> None:
    script = [STREAMING, chunk(b"one\n"), 0.05, chunk(b"two"), chunk(b"\n"), THE_END]

    async def test(client: Client) -> None:
        async with client.stream("/", {}, silence_s=5) as pieces:
            assert await anext(pieces) == b"one\n"
            assert b"".join([piece async for piece in pieces]) == b"two\n"
        async with client._bytes.stream("GET", "/") as response:
            sock = response.extensions["network_stream"].get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000

    talking(lambda *_: script, tmp_path, test)


def test_who_needs_only_a_directory_does_not_load_the_client() -> None:
    code = "import ambient.agent.root, sys; print({'lightkube', 'httpx2', 'msgspec'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
