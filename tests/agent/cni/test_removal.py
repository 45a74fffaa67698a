"""Removed or restarted: what the API server says about the DaemonSet and its namespace, and what silence means."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.agent.cni import removal
from ambient.agent.cni.removal import Finding

THERE: dict[str, Any] = {"metadata": {"name": "x"}}
GOING = {"metadata": {"name": "x", "deletionTimestamp": "2025-01-01T00:00:00Z"}}
NOBODY: dict[str, Any] = {}
NAMESPACE = "/api/v1/namespaces/mesh"
DAEMONSET = "/apis/apps/v1/namespaces/mesh/daemonsets/agent"


@pytest.mark.parametrize(
    ("namespace", "daemonset", "finding"),
    [
        ((200, THERE), (200, THERE), Finding.THERE),
        ((403, NOBODY), (200, THERE), Finding.THERE),
        ((403, NOBODY), (403, NOBODY), Finding.GONE),
        ((200, THERE), (200, GOING), Finding.GONE),
        ((200, THERE), (404, NOBODY), Finding.GONE),
        ((200, THERE), (403, NOBODY), Finding.GONE),
        ((200, THERE), (401, NOBODY), Finding.GONE),
        ((200, GOING), (200, THERE), Finding.GONE),
        ((404, NOBODY), (200, THERE), Finding.GONE),
        ((401, NOBODY), (200, THERE), Finding.GONE),
        ((200, THERE), (500, NOBODY), Finding.UNKNOWN),
        ((500, NOBODY), (200, THERE), Finding.THERE),
        ((500, NOBODY), (503, NOBODY), Finding.UNKNOWN),
    ],
)
def test_the_finding_follows_from_two_answers(
    namespace: tuple[int, Any], daemonset: tuple[int, Any], finding: Finding
) -> None:
    answers = {NAMESPACE: namespace, DAEMONSET: daemonset}
    found, why = removal.look("mesh", "agent", answers.__getitem__)
    assert found is finding, why
    assert why


def away(_: str) -> tuple[int, Any]:
    raise OSError("connection refused")


def test_an_api_server_that_is_away_proves_nothing() -> None:
    assert removal.look("mesh", "agent", away) == (
        Finding.UNKNOWN,
        "the API server cannot be asked: connection refused",
    )


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_who_is_away_for_a_moment_is_asked_again() -> None:
    clock = Clock()
    answers = iter([away, lambda _: (503, NOBODY), lambda _: (503, NOBODY)])
    gone = lambda _: (404, NOBODY)  # noqa: E731

    def get(path: str) -> tuple[int, Any]:
        return next(answers, gone)(path)

    found, _ = removal.find_out("mesh", "agent", get, clock=clock, sleep=clock.sleep)
    assert found is Finding.GONE
    assert clock.now < removal.PATIENCE_S


def test_asking_has_an_end() -> None:
    clock = Clock()
    found, _ = removal.find_out("mesh", "agent", away, clock=clock, sleep=clock.sleep)
    assert found is Finding.UNKNOWN
    assert removal.PATIENCE_S - 1 <= clock.now <= removal.PATIENCE_S + 1


def a_token(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


@pytest.mark.parametrize(
    ("token", "over"),
    [
        (a_token({"exp": 99}), True),
        (a_token({"exp": 100}), True),
        (a_token({"exp": 101}), False),
        (a_token({}), False),
        (a_token([]), False),
        (a_token({"exp": "soon"}), False),
        ("e30.%%%.c2ln", False),
        ("opaque", False),
    ],
)
def test_a_token_says_itself_when_it_is_over(token: str, over: bool) -> None:
    assert removal.is_over(token, 100.0) is over


@contextlib.contextmanager
def api_server(folder: Path, answers: dict[str, tuple[int, bytes]]) -> Iterator[list[tuple[str, str]]]:
    """An HTTPS server with a certificate of its own CA; yields what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            status, body = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    _certificate(folder)
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            environment.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
            yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _certificate(folder: Path) -> None:
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_it_asks_with_the_pods_own_credentials(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    body = json.dumps(THERE).encode()
    with api_server(tmp_path, {NAMESPACE: (200, body), DAEMONSET: (200, body)}) as asked:
        assert removal.look("mesh", "agent", removal.in_cluster(tmp_path))[0] is Finding.THERE
    assert asked == [(NAMESPACE, "Bearer secret"), (DAEMONSET, "Bearer secret")]


@pytest.mark.parametrize(("expires", "finding"), [(-60, Finding.UNKNOWN), (60, Finding.GONE)])
def test_a_token_that_is_over_is_refused_for_its_age_and_not_for_the_meshs_end(
    tmp_path: Path, expires: int, finding: Finding
) -> None:
    (tmp_path / "token").write_text(a_token({"exp": time.time() + expires}))
    with api_server(tmp_path, {NAMESPACE: (401, b"{}")}):
        assert removal.look("mesh", "agent", removal.in_cluster(tmp_path))[0] is finding


def test_an_answer_that_is_no_json_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with api_server(tmp_path, {NAMESPACE: (200, b"<html>")}):
        assert removal.look("mesh", "agent", removal.in_cluster(tmp_path))[0] is Finding.UNKNOWN


def test_outside_of_a_pod_there_is_nobody_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(OSError, match="this is no pod"):
        removal.in_cluster(tmp_path)
