"""What of a namespace's TCP table is on the wire in the clear. The table is text; no namespace is needed."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

import pytest

from ambient.capture import established
from ambient.capture.established import Clear
from ambient.model.mesh import address

POD, WEB, VIP = "10.0.0.2", "10.0.0.3", "10.96.0.1"
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
LISTEN, ESTABLISHED, TIME_WAIT, CLOSE_WAIT = "0A", "01", "06", "08"


def end(ip: str, port: int) -> str:
    packed = ipaddress.ip_address(ip).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


ENGINES, APPS, NOBODYS = 7, 8, 0  # inodes


def line(local: tuple[str, int], remote: tuple[str, int], state: str = ESTABLISHED, inode: int = APPS) -> str:
    head = f"   0: {end(*local)} {end(*remote)} {state} 00000000:00000000 00:00000000 00000000"
    return f"{head}     0        0 {inode} 1 0 10 0"


def found(*lines: str) -> list[Clear]:
    rows = list(established.parse([HEADER, *lines]))
    return established.in_the_clear(rows, [address(POD), address("fd00::2")], {ENGINES})


def test_a_connection_that_has_no_other_end_in_the_namespace_is_on_the_wire() -> None:
    assert found(line((POD, 40000), (WEB, 8080))) == [Clear(40000, address(WEB), 8080, inbound=False)]


def test_one_that_came_to_a_listening_port_is_inbound() -> None:
    rows = (line(("0.0.0.0", 8080), ("0.0.0.0", 0), LISTEN), line((POD, 8080), (WEB, 40000)))
    assert found(*rows) == [Clear(8080, address(WEB), 40000, inbound=True)]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(
            [line((POD, 40000), (VIP, 80)), line((VIP, 80), (POD, 40000))], id="a captured one, both its ends"
        ),
        pytest.param([line((POD, 41000), (WEB, 15008), inode=ENGINES)], id="a tunnel out"),
        pytest.param([line((POD, 15008), (WEB, 41000), inode=ENGINES)], id="a tunnel in"),
        pytest.param([line((POD, 15008), (WEB, 41000), inode=NOBODYS)], id="a tunnel in that is not accepted yet"),
        pytest.param([line((POD, 8080), (POD, 42000))], id="the mesh dials the app"),
        pytest.param([line(("127.0.0.1", 1), ("127.0.0.1", 2))], id="loopback"),
        pytest.param([line(("::1", 1), ("::1", 2))], id="loopback of IPv6"),
        pytest.param([line(("0.0.0.0", 8080), ("0.0.0.0", 0), LISTEN)], id="listening"),
        pytest.param([line((POD, 40000), (WEB, 8080), TIME_WAIT)], id="over"),
    ],
)
def test_what_the_mesh_carries_or_never_leaves_is_not(lines: list[str]) -> None:
    assert found(*lines) == []


@pytest.mark.parametrize("ports", [(15008, 41000), (41000, 15008)], ids=["in", "out"])
def test_what_an_app_has_on_the_tunnels_port_is_no_tunnel(ports: tuple[int, int]) -> None:
    (clear,) = found(line((POD, ports[0]), (WEB, ports[1])))
    assert (clear.local_port, clear.remote_port) == ports


def test_half_closed_connections_still_count() -> None:
    assert len(found(line((POD, 40000), (WEB, 8080), CLOSE_WAIT))) == 1


def test_an_ipv4_connection_of_an_ipv6_socket_is_the_same() -> None:
    mapped = line(("::ffff:10.0.0.2", 40000), ("::ffff:10.0.0.3", 8080))
    assert found(mapped) == [Clear(40000, address(WEB), 8080, inbound=False)]
    assert found(line(("fd00::2", 40000), ("fd00::3", 8080))) == [Clear(40000, address("fd00::3"), 8080, inbound=False)]


def test_the_kernels_own_table_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        inode = os.fstat(client.fileno()).st_ino
        # A set: the kernel walks its table bucket by bucket, and tells a row twice when others come in between.
        (row,) = {row for row in established.here() if row.inode == inode}
        assert (row.local[1], row.remote[1]) == (client.getsockname()[1], client.getpeername()[1])
        assert (address(row.local[0]), row.state in established.CARRYING) == (address("127.0.0.1"), True)
