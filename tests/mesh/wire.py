"""The wire oracle: it reads every frame of the fabric and says what could be read there.

A test's secrets are words that must not be seen. Whatever else the pods of the mesh say to each other must go to port
15008; what is meant to be in the clear is named with `in_the_clear`.
"""

from __future__ import annotations

import itertools
import secrets
from typing import Self

from ambient.lab import wiretap
from ambient.model.mesh import TUNNEL_PORT, address
from tests.mesh.cluster import NODES, Mesh

TLS_RECORDS = frozenset({b"\x14\x03\x03", b"\x15\x03\x03", b"\x16\x03\x01", b"\x16\x03\x03", b"\x17\x03\x03"})


class Wire:
    """Reads from the start of the `with` block to its end, and is asked after that."""

    def __init__(self, mesh: Mesh, inside: list[str]) -> None:
        """`inside`: the pods between which nothing may be in the clear."""
        self._taps = [wiretap.Wiretap(mesh, node) for node in NODES]
        self._inside = {address(ip) for pod in inside for ip in mesh.facts["pods"][pod]["ips"]}
        self._secrets: list[str] = []
        self._clear: set[int] = set()

    def __enter__(self) -> Self:
        for tap in self._taps:
            tap.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for tap in self._taps:
            tap.__exit__()

    def secret(self) -> str:
        """A word that nobody may read on the wire."""
        self._secrets.append("secret-" + secrets.token_hex(12))
        return self._secrets[-1]

    def in_the_clear(self, *ports: int) -> None:
        """These ports are meant to be readable."""
        self._clear.update(ports)

    def streams(self) -> dict[wiretap.Direction, bytes]:
        """What was said, by direction; the same in both taps counts once."""
        return {way: bytes(said) for tap in self._taps for way, said in tap.seen.items() if said}

    def readable(self, word: str) -> list[wiretap.Direction]:
        return [way for way, said in self.streams().items() if word.encode() in said]

    def findings(self) -> list[str]:
        """Everything that should not have been on the wire."""
        found = [f"{word} is readable: {way}" for word in self._secrets for way in self.readable(word)]
        for way, said in self.streams().items():
            ports = {way.source_port, way.destination_port}
            if {way.source, way.destination} <= self._inside and not ports & ({TUNNEL_PORT} | self._clear):
                found.append(f"in the clear: {way}: {said[:80]!r}")
        return found

    def tunnels(self) -> list[tuple[wiretap.Direction, bytes]]:
        return [(way, said) for way, said in self.streams().items() if way.destination_port == TUNNEL_PORT]


def is_tls(said: bytes) -> bool:
    """Whether these bytes, from the first of the connection on, are TLS records and nothing else."""
    at = 0
    for _ in itertools.count():
        if at + 5 > len(said):
            return True  # the rest was cut off by the tap, or by the end of the test
        if said[at : at + 3] not in TLS_RECORDS:
            return False
        at += 5 + int.from_bytes(said[at + 3 : at + 5])
    return True
