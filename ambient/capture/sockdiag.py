"""Ending TCP connections of the calling thread's network namespace, by sock_diag(7). Knows nothing of who they are.

Each is looked up first and ended by the kernel's own cookie for it: asked for an established socket that has just gone,
the kernel takes the listener that would get such a packet, and would close that. Source: linux/inet_diag.h,
net/ipv4/inet_diag.c.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable

from ambient.model.mesh import IPAddress

_HEAD = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2: family, protocol, extensions, states; its id follows
_ID = struct.Struct("!HH16s16s4s8s")  # struct inet_diag_sockid: ports, addresses, interface, cookie
_ANSWER = struct.Struct("=BBBB")  # struct inet_diag_msg: family, state, timer, retransmissions; its id follows
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY, _ERROR = 20, 21, 2
_NETLINK_SOCK_DIAG = 4
_PLEASE, _ACK = 1, 4  # NLM_F_*
_ANY, _NO_COOKIE = bytes(4), b"\xff" * 8
_LISTEN, _TIME_WAIT = 10, 6
_GONE = {errno.ENOENT, errno.ESTALE, errno.EOPNOTSUPP}  # EOPNOTSUPP: it waits out its time only

End = tuple[IPAddress, int]


def destroy(connections: Iterable[tuple[End, End]]) -> set[tuple[End, End]]:
    """End those of these (local, remote) that are there; which were. Raises OSError with the kernel's errno."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.bind((0, 0))
        return {(local, remote) for local, remote in connections if _destroy(kernel, local, remote)}


def obstacle() -> str:
    """Why this kernel ends no connection for us, tried with one of our own; empty: it does.

    Without tcp_diag (CONFIG_INET_DIAG_DESTROY) it says that none is there.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            local, remote = client.getsockname(), client.getpeername()
            here = ipaddress.ip_address(local[0])
            found = destroy([((here, local[1]), (here, remote[1]))])
            ended = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED
    except OSError as error:
        return f"sock_diag was to end a connection of our own: {error}"
    if not found:
        return "sock_diag finds no connection: tcp_diag is missing, or built without CONFIG_INET_DIAG_DESTROY"
    return "" if ended else "sock_diag says that it ended a connection of our own, which goes on"


def _destroy(kernel: socket.socket, local: End, remote: End) -> bool:
    family = socket.AF_INET if local[0].version == 4 else socket.AF_INET6
    found = _ask(kernel, _SOCK_DIAG_BY_FAMILY, family, local, remote, _NO_COOKIE)
    if found is None:
        return False
    state = _ANSWER.unpack_from(found)[1]
    cookie = _ID.unpack_from(found, _ANSWER.size)[-1]
    if state in (_LISTEN, _TIME_WAIT):
        return False
    return _ask(kernel, _SOCK_DESTROY, family, local, remote, cookie) is not None


def _ask(kernel: socket.socket, kind: int, family: int, local: End, remote: End, cookie: bytes) -> bytes | None:
    """The answer's body (of a destroy: empty); None when there is no such socket."""
    name = _ID.pack(local[1], remote[1], local[0].packed, remote[0].packed, _ANY, cookie)
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + name
    flags = _PLEASE | (_ACK if kind == _SOCK_DESTROY else 0)
    kernel.send(_HEAD.pack(_HEAD.size + len(body), kind, flags, 0, 0) + body)
    answer = kernel.recv(8192)
    length, said, _, _, _ = _HEAD.unpack_from(answer)
    if said != _ERROR:
        return answer[_HEAD.size : length]
    number = -int.from_bytes(answer[_HEAD.size : _HEAD.size + 4], "little", signed=True)
    if number in _GONE:
        return None
    if number:
        raise OSError(number, os.strerror(number))
    return b""
