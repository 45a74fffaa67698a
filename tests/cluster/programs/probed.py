"""A program for every kind of probe, on ports of their own: 8081 HTTP, 8082 TCP, 8083 gRPC.

It is well unless /tmp/sick is there: then HTTP answers 503, gRPC NOT_SERVING, and nobody listens at the TCP port.
"""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

SICK = "/tmp/sick"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # grpc.health.v1.HealthCheckResponse on the wire: field 1, an enum


class Http(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if os.path.exists(SICK) else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Dual(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6  # of a socket that serves both families


def tcp() -> None:
    """A listener while the program is well."""
    while True:
        with socket.create_server(("::", 8082), family=socket.AF_INET6, dualstack_ipv6=True):
            while not os.path.exists(SICK):
                time.sleep(0.05)
        while os.path.exists(SICK):
            time.sleep(0.05)


def health() -> grpc.Server:
    check = grpc.unary_unary_rpc_method_handler(lambda *_: NOT_SERVING if os.path.exists(SICK) else SERVING)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})])
    server.add_insecure_port("[::]:8083")
    server.start()
    return server


keep = health()
threading.Thread(target=tcp, daemon=True).start()
print("ready", flush=True)
Dual(("::", 8081), Http).serve_forever()
