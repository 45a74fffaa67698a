"""The TCP connections that leave a network namespace as they are: what the wire would show of a pod. Only reads.

From the kernel's own table, not from anything the mesh remembers: connections older than the capture are in it too.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ambient.model import mesh
from ambient.model.mesh import IPAddress

TABLES = ("tcp", "tcp6")
LISTEN = 0x0A
CARRYING = {0x01, 0x05, 0x08}  # ESTABLISHED, FIN_WAIT2, CLOSE_WAIT: bytes may still come one way (net/tcp_states.h)


@dataclass(frozen=True, slots=True, order=True)
class Row:
    state: int
    local: tuple[bytes, int]  # address as packed16, port
    remote: tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Clear:
    """One connection whose bytes can be read on the wire."""

    local_port: int
    remote: IPAddress
    remote_port: int
    inbound: bool


def here() -> list[Row]:
    """Every TCP socket of the calling thread's namespace."""
    rows: list[Row] = []
    for table in TABLES:
        try:
            with Path("/proc/thread-self/net", table).open() as file:
                rows += parse(file)
        except FileNotFoundError:  # a kernel without IPv6
            continue
    return rows


def parse(lines: Iterable[str]) -> Iterator[Row]:
    """Lines of /proc/net/tcp or tcp6, their header first (Linux Documentation/networking/proc_net_tcp.rst)."""
    iterator = iter(lines)
    next(iterator, None)
    for line in iterator:
        _, local, remote, state, *_ = line.split()
        yield Row(int(state, 16), _end(local), _end(remote))


def in_the_clear(rows: Collection[Row], own: Collection[IPAddress]) -> list[Clear]:
    """Those that leave the pod outside a tunnel. `own`: the pod's addresses.

    What the mesh carries never leaves: a captured socket's other end is the mesh's, in the same namespace, with the
    same two addresses the other way round; and the mesh dials the app from the pod's own address.
    """
    mine = {mesh.packed16(ip) for ip in own}
    listening = {row.local[1] for row in rows if row.state == LISTEN}
    carrying = [row for row in rows if row.state in CARRYING]
    both_ways = {(row.remote, row.local) for row in carrying}
    found = []
    for row in sorted(carrying):
        remote = mesh.address(row.remote[0])
        if remote.is_loopback or row.remote[0] in mine or (row.local, row.remote) in both_ways:
            continue
        if mesh.TUNNEL_PORT in (row.local[1], row.remote[1]):
            continue
        found.append(Clear(row.local[1], remote, row.remote[1], row.local[1] in listening))
    return found


def _end(text: str) -> tuple[bytes, int]:
    """An address as the kernel prints it: 32-bit words in the machine's own order."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return mesh.packed16(mesh.address(packed)), int(port, 16)
