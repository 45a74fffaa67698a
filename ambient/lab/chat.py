"""A TCP conversation that stays open: a small client inside a pod, driven from outside line by line."""

from __future__ import annotations

import subprocess
import sys
import time
from types import TracebackType

from ambient.lab.client import Lab

# Runs in the pod. Ends with 0 when it is told to, with CUT as soon as the other side ends the connection.
CUT = 9
_CLIENT = """
import select, socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as there:
    there.settimeout(10)
    print(there.getpeername()[0], flush=True)
    while True:
        ready = select.select([there, sys.stdin.buffer.raw], [], [])[0]
        if there in ready:
            try:
                answer = there.recv(65536)
            except (ConnectionResetError, ConnectionAbortedError):
                answer = b""
            if not answer:
                sys.exit(%d)
            sys.stdout.buffer.write(answer)
            sys.stdout.buffer.flush()
        else:
            line = sys.stdin.buffer.raw.readline()
            if not line:
                sys.exit(0)
            there.sendall(line)
"""


class Chat:
    """Open while in the `with` block; raises ConnectionError when it cannot be opened."""

    def __init__(self, lab: Lab, pod: str, host: str, port: int) -> None:
        self.pod = pod
        self._process = lab.popen(
            pod,
            [sys.executable, "-c", _CLIENT % CUT, host, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.peer = self._process.stdout.readline().strip()
        if not self.peer:
            said = self._process.stderr.read().strip().splitlines()
            self.close()
            raise ConnectionError(
                f"{pod} could not connect to {host} port {port}: {said[-1] if said else 'no reason given'}"
            )

    def __enter__(self) -> Chat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, text: str) -> str:
        """The answer to one line; empty when the connection was cut."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(text + "\n")
        except BrokenPipeError:
            return ""
        return str(self._process.stdout.readline()).rstrip("\n")

    @property
    def open(self) -> bool:
        return self._process.poll() is None

    def until_cut(self, patience: float) -> float | None:
        """Seconds until the other side ended it; None when it still stands after `patience` seconds."""
        began = time.monotonic()
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - began if code == CUT else None

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process.kill()
        self._process.wait()
