"""Sockets made in the calling thread's network namespace (netns.run): listeners for the engine, and unconnected ones.

A socket stays in the namespace it was made in, whoever uses it. Nothing here decides who gets one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket

from ambient.capture.abi import Role

_BACKLOG = 65535  # the kernel lowers it to net.core.somaxconn
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
# A call that takes a microsecond and never waits: the interpreter's lock is kept. To give it to the event loop's thread
# and get it back would cost more, for each connection.
_libc = ctypes.PyDLL(None, use_errno=True)
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
    if count == 0:
        return []
    found = [_tcp()]
    family = found[0].family
    both = family == socket.AF_INET6 and _serves_both_by_itself()
    found += [_like_the_first(family, both=both) for _ in range(count - 1)]
    return found


def _like_the_first(family: int, *, both: bool) -> socket.socket:
    fd = _libc.socket(family, _STREAM, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    sock = socket.socket(family, _STREAM, 0, fileno=fd)
    if family == socket.AF_INET6 and not both:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def _serves_both_by_itself() -> bool:
    """Whether a new IPv6 socket of this namespace does: net.ipv6.bindv6only says so, if it was not changed just now."""
    with socket.socket(socket.AF_INET6, _STREAM) as fresh:
        return not fresh.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


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
        sock = socket.socket(socket.AF_INET6, _STREAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return socket.socket(socket.AF_INET, _STREAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock
