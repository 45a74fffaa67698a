"""Of a service's endpoints connections choose by weight, those through the engine included."""

from __future__ import annotations

import math
import select
import selectors
import socket
from collections import Counter
from pathlib import Path

import pytest

from ambient.capture import Role

from .. import apps, pods
from .conftest import PORT, Pair

pytestmark = pytest.mark.kernel

COUNT = 4000
MANY = 20.5  # chi-squared of 3 degrees of freedom: more by chance once in 7,000 runs


def ask_often(channel: socket.socket, to: str, port: int, count: int) -> dict[bytes, int]:
    """What each connection was told."""
    del channel
    said: Counter[bytes] = Counter()
    for _ in range(count):
        with socket.create_connection((to, port), timeout=pods.DEADLINE) as sock:
            said[sock.recv(100)] += 1
    return said


def tell_all(channel: socket.socket, at: str, words: dict[int, bytes]) -> None:
    """Say to everybody the word of the port they came to."""
    with selectors.DefaultSelector() as waiting:
        for port, word in words.items():
            server = socket.create_server((at, port), family=socket.AF_INET6 if ":" in at else socket.AF_INET)
            waiting.register(server, selectors.EVENT_READ, word)
        pods.tell(channel, "listening")
        while True:
            for key, _ in waiting.select():
                client, _ = key.fileobj.accept()  # type: ignore[union-attr]
                with client:
                    client.send(key.data)
                    client.recv(1)  # who connected closes first, and keeps the port


@pytest.mark.parametrize("spare", [False, True], ids=["both programs", "the spare alone"])
def test_connections_are_spread_by_weight(pair: Pair, bpffs: Path, spare: bool) -> None:
    weights = {PORT: 4, PORT + 1: 2, PORT + 2: 1, 0: 3}  # 0: not on this node
    words = {port: f"app {port}".encode() for port in weights if port}
    server = pair.server.start(tell_all, str(pair.at[0]), words)
    assert server.receive() == "listening"
    endpoints = [
        pair.endpoint(port=port or PORT, weight=weight, server=pair.server.netns.cookie if port else None)
        for port, weight in weights.items()
    ]
    pair.allow(pair.vip, *endpoints)
    if spare:
        pods.detach(bpffs, f"links/connect{4 if pair.family == 'v4' else 6}")
    client = pair.client.start(ask_often, *pair.spelled(pair.vip), COUNT)
    listener = pair.listeners["client"][Role.OUTBOUND]
    engine = 0
    while not client.waiting():
        engine += _serve(listener, client)
    said = client.receive()
    expected = {word: COUNT * weights[port] / 10 for port, word in words.items()} | {b"engine": COUNT * 0.3}
    assert sum(said.values()) == COUNT
    assert said[b"engine"] == engine
    chi_squared = math.fsum((said[word] - count) ** 2 / count for word, count in expected.items())
    assert chi_squared < MANY, said
    found: list[object] = []
    while pair.capture.direct.read(found.append):  # type: ignore[arg-type]
        pass
    assert len(found) == COUNT - engine


def _serve(listener: socket.socket, client: pods.Remote) -> int:
    """One captured connection, if one comes before the client is done."""
    ready, _, _ = select.select([listener, client], [], [], pods.DEADLINE)
    if listener not in ready:
        return 0
    apps.take(listener)
    return 1
