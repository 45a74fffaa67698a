"""An API server in miniature: one HTTPS port, scripted answers, watches that a test feeds."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ipaddress
import json
import queue
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Script:
    """What it answers, by path; a path that is not there is refused (401). Watches get what is put into `events`."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()  # None: the server ends the watch
        self.asked: list[tuple[str, str]] = []  # path, Authorization
        self.watching = threading.Event()

    def set(self, path: str, status: int, body: object) -> None:
        self.answers[path] = status, json.dumps(body).encode()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Script]:
    """Its certificate is of its own CA; the environment says where it is, and the folder has the credentials for it."""
    script = Script()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            script.asked.append((self.path, self.headers["Authorization"]))
            if "watch=1" in self.path and "*" not in script.answers:
                self._watch()
                return
            status, body = script.answers.get("*") or script.answers.get(self.path) or (401, b"{}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _watch(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            script.watching.set()
            while (event := script.events.get()) is not None:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
            script.watching.clear()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    _certificate(folder)
    (folder / "token").write_text("secret\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            environment.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
            yield script
    finally:
        script.events.put(None)
        server.shutdown()
        thread.join()
        server.socket.close()


def _certificate(folder: Path) -> None:
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
