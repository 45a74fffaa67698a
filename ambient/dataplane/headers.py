"""The headers of a CONNECT, as both sides of HBONE write them. Pure text.

`:authority` is an ip:port, IPv6 in brackets (RFC 9110 section 7.2); `baggage` is W3C Baggage with the keys Istio uses.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from ambient.model.mesh import IPAddress, Workload, address


class BadHeader(ValueError):
    """The peer's request is malformed; the text names header and value."""


def parse(tail: bytes) -> dict[str, str]:
    """The engine's "name\\0value\\0"... as a mapping; of a repeated name the first stays. Raises BadHeader."""
    parts = tail.split(b"\0")
    if len(parts) % 2 == 0 or parts[-1]:
        raise BadHeader("the header block is not a sequence of names and values")
    headers: dict[str, str] = {}
    for name, value in zip(parts[0:-1:2], parts[1:-1:2], strict=True):
        headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return headers


def authority(text: str) -> tuple[IPAddress, int]:
    """ip:port or [ip]:port. Raises BadHeader for anything else, a host name included."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = address(host[1:-1] if bracketed else host)
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    except ValueError:
        raise BadHeader(f":authority {text!r} is not an ip:port") from None
    if not colon or not 0 < number < 65536 or (":" in host) != bracketed:
        raise BadHeader(f":authority {text!r} is not an ip:port")
    return ip, number


def forwarded_host(value: str) -> str:
    """The host of `forwarded: for="ip:port";host=NAME` (RFC 7239): the Service that the peer's client dialled, it says.

    Looks at nothing in front of `host=`: neither does the engine when it repeats an answer.
    """
    found = re.search(r'host="?([^";, \t]*)', value, re.IGNORECASE)
    return found[1] if found else ""


def baggage(client: Workload) -> str:
    """Who is calling, for the other side's telemetry (never for its decisions)."""
    items = {
        "k8s.namespace.name": client.namespace,
        "k8s.pod.name": client.name,
        "service.name": client.owner,
        "cloud.region": client.locality.region,
        "cloud.availability_zone": client.locality.zone,
    }
    return ",".join(f"{key}={quote(value, safe='')}" for key, value in items.items() if value)
