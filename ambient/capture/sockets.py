"""Sockets made in the calling thread's network namespace (netns.run): listeners for the engine, and unconnected ones.

A socket stays in the namespace it was made in, whoever uses it. Nothing here decides who gets one.
"""

from __future__ import annotations

import errno
import socket

from ambient.capture.abi import Role

_BACKLOG = 65535  # the kernel lowers it to net.core.somaxconn
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::ffff:127.0.0.1"}


def listeners() -> dict[Role, socket.socket]:
    """One listening socket per role, of both families where there are two, nonblocking.

    They are bound to loopback so that no port an application could want on the pod's address is taken; connections
    come to them through the socket lookup only, whatever they were sent to.
    """
    made: dict[Role, socket.socket] = {}
    try:
        for role in Role:
            made[role] = _listener(transparent=role is Role.OUTBOUND)
    except BaseException:
        for each in made.values():
            each.close()
        raise
    return made


def unconnected(count: int) -> list[socket.socket]:
    """Nonblocking TCP sockets; `.family` says whether one serves both families (AF_INET6) or IPv4 only."""
    return [_tcp() for _ in range(count)]


def _listener(*, transparent: bool) -> socket.socket:
    sock = _tcp()
    try:
        if transparent:  # else the kernel drops what is not addressed to the pod
            sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        sock.bind((_LOOPBACK[sock.family], 0))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock
