"""A captured connection of a pod, and what its application may do with it; what leaks is read from the pod's link."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import apps, pods

PORT = 8080
WORD, END = b"a word in plaintext", b"the tap may stop"
FAMILIES = ("v4", "v6", "v4-mapped", "mptcp")
Option = tuple[int, int, Any]  # level, name, value

DEVICE: Option = (socket.SOL_SOCKET, apps.SO_BINDTODEVICE, b"eth0")
INDEX: Option = (socket.SOL_SOCKET, apps.SO_BINDTOIFINDEX, pods.ETH0)


def mark(value: int) -> Option:
    return socket.SOL_SOCKET, apps.SO_MARK, value


@dataclass
class Captured:
    pod: pods.Pod
    app: pods.Remote
    engine: socket.socket

    def do(self, *what: Any) -> str:
        """Tell the application to, see apps.move; "", or the error's class name."""
        self.app.tell(what)
        return str(self.app.receive())

    def heard(self) -> bytes:
        """What has come to the engine's end."""
        ready, _, _ = select.select([self.engine], [], [], pods.DEADLINE)
        return self.engine.recv(100) if ready else b""

    def leaks(self, *send: Any) -> bool:
        """Say the word, by default in the plainest way. Whether it left the pod, by whichever interface."""
        taps = {
            self.pod.node.start(apps.tap, link, WORD, END): neighbour for link, neighbour in self.pod.neighbours.items()
        }
        assert [tap.receive() for tap in taps] == ["listening"] * len(taps)
        self.do(*(send or ("sendall", WORD)))
        for neighbour in taps.values():
            self.pod.run(apps.send_datagram, str(neighbour), 9, END)
        leaked = [tap.receive() for tap in taps]
        for tap in taps:
            tap.finish()
        return any(leaked)


@contextmanager
def connection(pod: pods.Pod, listener: socket.socket, family: str) -> Iterator[Captured]:
    """To the pod's neighbour: the one whom a packet reaches that is believed to be on the link."""
    to = {"v6": str(pod.gateway6), "v4-mapped": f"::ffff:{pod.gateway4}"}.get(family, str(pod.gateway4))
    app = pod.start(apps.move, to, PORT, "mptcp" if family == "mptcp" else "")
    assert app.receive() == "ready"
    engine, _ = listener.accept()
    with engine:
        yield Captured(pod, app, engine)
    app.finish()
