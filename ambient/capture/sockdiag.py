"""TCP connections of the calling thread's network namespace, by sock_diag(7): what they have carried, and their end.

Knows nothing of who they are. Each that is to end is looked up first and ended by the kernel's own cookie for it: asked
for an established socket that has just gone, the kernel takes the listener that would get such a packet, and would
close that. Source: linux/inet_diag.h, net/ipv4/inet_diag.c, linux/tcp.h.
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
_ANSWER_SIZE = _ANSWER.size + _ID.size + 5 * 4  # struct inet_diag_msg, with what follows its id; then attributes
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length with this head, type
_INFO = 2  # INET_DIAG_INFO: struct tcp_info
_CARRIED = struct.Struct("=120x2Q")  # of it: tcpi_bytes_acked, tcpi_bytes_received
_FIN_WAIT2, _TIME_WAIT, _CLOSE_WAIT, _LAST_ACK, _LISTEN, _CLOSING = 5, 6, 8, 9, 10, 11  # net/tcp_states.h
_GONE = {errno.ENOENT, errno.ESTALE, errno.EOPNOTSUPP}  # EOPNOTSUPP: it waits out its time only

End = tuple[IPAddress, int]


def destroy(connections: Iterable[tuple[End, End]]) -> set[tuple[End, End]]:
    """End those of these (local, remote) that are there; which were. Raises OSError with the kernel's errno."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.bind((0, 0))
        return {(local, remote) for local, remote in connections if _destroy(kernel, local, remote)}


def carried(connections: Iterable[tuple[End, End]]) -> dict[tuple[End, End], tuple[int, int]]:
    """Bytes of the application, (acknowledged, received), of those of these (local, remote) that dialled and are there.

    Raises OSError with the kernel's errno.
    """
    found = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.bind((0, 0))
        for local, remote in connections:
            answer = _ask(kernel, _SOCK_DIAG_BY_FAMILY, _family(local), local, remote, _NO_COOKIE, _INFO)
            if answer is not None and (bytes_ := _carried(answer)) is not None:
                found[local, remote] = bytes_
    return found


def _carried(answer: bytes) -> tuple[int, int] | None:
    """As the kernel counts for a record: see bpf/sockops.bpf.c, count_bytes. None: it is over, or was none."""
    state = _ANSWER.unpack_from(answer)[1]
    at = _ANSWER_SIZE
    while state not in (_LISTEN, _TIME_WAIT) and at + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, at)
        if kind == _INFO and length >= _ATTRIBUTE.size + _CARRIED.size:
            acked, received = _CARRIED.unpack_from(answer, at + _ATTRIBUTE.size)
            fin_acked, fin_received = state == _FIN_WAIT2, state in (_CLOSE_WAIT, _LAST_ACK, _CLOSING)
            return max(acked - 1 - fin_acked, 0), received - fin_received  # 1: our SYN
        at += max(-(-length // 4) * 4, _ATTRIBUTE.size)
    return None


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
    family = _family(local)
    found = _ask(kernel, _SOCK_DIAG_BY_FAMILY, family, local, remote, _NO_COOKIE)
    if found is None:
        return False
    state = _ANSWER.unpack_from(found)[1]
    cookie = _ID.unpack_from(found, _ANSWER.size)[-1]
    if state in (_LISTEN, _TIME_WAIT):
        return False
    return _ask(kernel, _SOCK_DESTROY, family, local, remote, cookie) is not None


def _family(local: End) -> int:
    return socket.AF_INET if local[0].version == 4 else socket.AF_INET6


def _ask(
    kernel: socket.socket, kind: int, family: int, local: End, remote: End, cookie: bytes, more: int = 0
) -> bytes | None:
    """The answer's body (of a destroy: empty); None when there is no such socket. `more`: an attribute to be told."""
    name = _ID.pack(local[1], remote[1], local[0].packed, remote[0].packed, _ANY, cookie)
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << more >> 1, 0xFFFFFFFF) + name
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
