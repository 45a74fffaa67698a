"""A direct connection costs nothing while it lasts: none of our programs runs for what is sent."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.capture.libbpf import Link

from .. import pods
from .conftest import PORT, Pair

pytestmark = pytest.mark.kernel

BULK = 4 << 20  # bytes: many packets, and a window that closes


@pytest.fixture
def counting() -> Iterator[None]:
    """The kernel counts how often programs run, while anybody wants it to."""
    fd = ctypes.CDLL("libbpf.so.1", use_errno=True).bpf_enable_stats(0)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    yield
    os.close(fd)


def _runs(bpffs: Path) -> dict[str, int]:
    """Of every program that is attached, by its pin."""
    found = {}
    pinned = bpffs / "ambient-v1"
    for place in sorted(each for kind in ("links*", "lookup*") for each in pinned.glob(f"{kind}/*")):
        link = Link.pinned(place)
        assert link, place
        with link:
            said = subprocess.check_output(["bpftool", "-j", "prog", "show", "id", str(link.state().program)])
        found[str(place.relative_to(pinned))] = json.loads(said).get("run_cnt", 0)
    return found


def _echo(channel: socket.socket, at: str, port: int) -> None:
    with socket.create_server((at, port), family=socket.AF_INET6 if ":" in at else socket.AF_INET) as server:
        pods.tell(channel, "listening")
        sock, _ = server.accept()
        with sock:
            while data := sock.recv(1 << 16):
                sock.sendall(data)


def _say(channel: socket.socket, to: str, port: int) -> None:
    """After each number that is told, so many bytes, there and back."""
    with socket.create_connection((to, port)) as sock:
        pods.tell(channel, "connected")
        while count := pods.told(channel):
            sent = 0
            while sent < count:
                size = sock.send(bytes(min(1 << 16, count - sent)))
                sent += size
                while size:
                    size -= len(sock.recv(size))
            pods.tell(channel, sent)


def test_none_of_our_programs_runs_for_a_message(pair: Pair, bpffs: Path, counting: None) -> None:
    del counting
    pair.allow(pair.vip)
    server = pair.server.start(_echo, str(pair.at[0]), PORT)
    assert server.receive() == "listening"
    client = pair.client.start(_say, *pair.spelled(pair.vip))
    assert client.receive() == "connected"
    client.tell(1)
    assert client.receive() == 1
    begun = _runs(bpffs)
    assert begun["links/sock_ops"] >= 2, "they are counted"
    assert sum(count for pin, count in begun.items() if pin.startswith("lookup/")) == 1, "once for its SYN"
    for count in (*[64] * 300, BULK):
        client.tell(count)
        assert client.receive() == count
    assert _runs(bpffs) == begun
    client.tell(0)
    client.receive()
    server.finish()
    assert _runs(bpffs)["links/sock_ops"] > begun["links/sock_ops"], "its end is told"
    pair.ended()
