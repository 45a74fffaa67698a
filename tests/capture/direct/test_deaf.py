"""A client that does not hear its server says nothing of the server."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

import pytest

from ambient.capture import direct

from .. import pods
from .conftest import Pair

pytestmark = pytest.mark.kernel

SO_ATTACH_FILTER, TCP_USER_TIMEOUT = 26, 18


def deaf(channel: socket.socket, to: str, port: int) -> str:
    """Connect, with a filter that drops every answer: no privilege is needed."""
    del channel
    nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(nothing))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 100)
        sock.settimeout(pods.DEADLINE)
        try:
            sock.connect((to, port))
        except OSError as error:
            return type(error).__name__
    return "connected"


def test_a_client_that_drops_the_answer(pair4: Pair) -> None:
    pair4.allow(pair4.vip)
    server = pair4.serve()
    assert pair4.client.run(deaf, *pair4.spelled(pair4.vip)) == "TimeoutError"
    (record,) = pair4.ended()
    assert (record.outcome, record.error) == (direct.Outcome.FAILED, errno.ETIMEDOUT)
    assert record.flow.admitted, "the server was there"
    server.finish()
