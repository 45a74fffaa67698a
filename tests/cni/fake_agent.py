"""An agent that answers the plugin as the test says, and keeps what it was asked."""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Answer = Callable[[int], bytes | None]  # how often asked before -> what to say; None: say nothing until stopped


@dataclass(frozen=True, slots=True)
class Asked:
    variables: dict[str, str]
    config: bytes
    netns: int  # inode of what the descriptor was of; 0: none came


class FakeAgent:
    """Listens at RUN_DIR/cni.sock while the `with` block lasts."""

    def __init__(self, run_dir: Path, answer: bytes | Answer | None = b"pass") -> None:
        self.asked: list[Asked] = []
        self._answer: Answer = answer if callable(answer) else lambda _: answer
        self._stopped = threading.Event()
        self._path = run_dir / "cni.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> FakeAgent:
        self._listener.bind(str(self._path))
        self._listener.listen(8)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        self._path.unlink()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                self.asked.append(_read(sock))
                answer = self._answer(len(self.asked) - 1)
                if answer is None:
                    self._stopped.wait(10)
                else:
                    sock.sendall(answer)


def _read(sock: socket.socket) -> Asked:
    message, netns = b"", 0
    while True:
        data, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(8))
        for _, _, payload in ancillary:
            for fd in array.array("i", payload[:4]):
                netns = os.fstat(fd).st_ino
                os.close(fd)
        message += data
        if not data:
            break
    head, _, config = message.partition(b"\0\0")
    variables = dict(item.partition("=")[::2] for item in head.decode().split("\0"))
    return Asked(variables, config, netns)
