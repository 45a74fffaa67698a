"""What a pod does to its node when it means no good, for the puppet."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import socket
import time
from typing import Any

_scan: list[socket.socket] = []


def scan(network: str, count: int) -> dict[str, Any]:
    """Dial `count` addresses one after the other, waiting for none; the dials are kept until scan_ends()."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    first, began = ipaddress.ip_network(network)[1], time.monotonic()
    for number in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        _scan.append(sock)
        with contextlib.suppress(OSError):  # BlockingIOError, or a refusal
            sock.connect((str(first + number), 80))
    return {"took": time.monotonic() - began}


def scan_ends() -> dict[str, Any]:
    for sock in _scan:
        sock.close()
    _scan.clear()
    return {}


def knock(to: str, port: int, seconds: float) -> dict[str, Any]:
    """Dial the same door again as soon as it is refused; how often, and by whom: the kernel's EPERM, or a reset."""
    until, refused, others = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        with socket.socket() as sock:
            sock.settimeout(seconds)
            try:
                sock.connect((to, port))
                with contextlib.suppress(ConnectionResetError):
                    sock.recv(1)
                others += 1
            except PermissionError:
                refused += 1
            except OSError:
                others += 1
    return {"refused": refused, "others": others}
