"""The engine as an operating system process: start it, look at it through /proc, end it. Speaks no protocol of it."""

from __future__ import annotations

import os
import pathlib
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from tests import slowness

BINARY = pathlib.Path(
    os.environ.get("AMBIENT_ENGINE")
    or pathlib.Path(__file__).parent.parent.parent / "ambient" / "native" / "ambient-engine"
)
START_TIMEOUT = slowness.seconds(10.0)  # some 20 ms without sanitizers
STOP_TIMEOUT = slowness.seconds(10.0)


def sanitized() -> bool:
    """Is the engine built with ASan or TSan? Then its memory says little about what it keeps."""
    content = BINARY.read_bytes() if BINARY.exists() else b""  # without one Engine() says what to do
    return b"__asan_init" in content or b"__tsan_init" in content


def eventually(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    """Poll what the kernel announces by no event, /proc for one."""
    timeout = slowness.seconds(timeout)
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        pause.wait(0.01)


def door(run_dir: pathlib.Path, worker: int) -> pathlib.Path:
    """A worker's socket; the run directory has one engine."""
    (path,) = run_dir.glob(f"engine-*.{worker}.sock")
    return path


class Engine:
    """A running engine; `max_fds`: its limit of descriptors.

    stop() also asserts that it was still alive and ended cleanly: sanitizers speak at exit."""

    def __init__(self, run_dir: pathlib.Path, threads: int = 1, *, max_fds: int = 0) -> None:
        assert os.access(BINARY, os.X_OK), f"no engine at {BINARY}: build it with `make native` or set AMBIENT_ENGINE"
        run_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir = run_dir
        self.threads = threads
        self._stderr = run_dir / "stderr.txt"
        ready, child_end = os.pipe()
        try:
            with self._stderr.open("wb") as stderr:
                limited = ["prlimit", f"--nofile={max_fds}:{max_fds}"] if max_fds else []
                self._process = subprocess.Popen(
                    [*limited, BINARY, "--run-dir", run_dir, "--threads", str(threads), "--ready-fd", str(child_end)],
                    pass_fds=(child_end,),
                    stdin=subprocess.DEVNULL,
                    stderr=stderr,
                    start_new_session=True,
                )
            os.close(child_end)
            child_end = -1
            readable, _, _ = select.select([ready], [], [], START_TIMEOUT)
            if not readable or os.read(ready, 1) == b"":
                self.kill()
                raise AssertionError(f"{BINARY} did not become ready: {self.said()}")
        finally:
            os.close(ready)
            if child_end >= 0:
                os.close(child_end)

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self) -> str:
        """What the engine wrote to stderr."""
        return self._stderr.read_text(errors="replace")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def proc(self, name: str) -> pathlib.Path:
        return pathlib.Path(f"/proc/{self.pid}/{name}")

    def fds(self) -> int:
        return len(list(self.proc("fd").iterdir()))

    def rss(self) -> int:
        """Resident bytes."""
        return int(self.status()["VmRSS"].split()[0]) * 1024

    def holds(self, number: int) -> bool:
        """Is a number of 256 bits in its memory, as OpenSSL computes with it or as files have it?"""
        forms = number.to_bytes(32, "little"), number.to_bytes(32, "big")
        with self.proc("mem").open("rb", buffering=0) as memory:
            for line in self.proc("maps").read_text().splitlines():
                span, mode, _ = line.split(None, 2)
                start, end = (int(part, 16) for part in span.split("-"))
                if mode.startswith("rw") and not line.endswith("[vvar]"):
                    memory.seek(start)
                    content = memory.read(end - start)
                    if any(form in content for form in forms):
                        return True
        return False

    def status(self) -> dict[str, str]:
        """/proc/PID/status of the first thread."""
        lines = self.proc("status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def cpu_seconds(self) -> float:
        fields = self.proc("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(STOP_TIMEOUT)

    def stop(self) -> None:
        died = self._process.poll()
        assert died is None, f"the engine ended by itself with status {died}: {self.said()}"
        self._process.send_signal(signal.SIGINT)
        self.await_end()

    def leave(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def await_end(self, timeout: float = STOP_TIMEOUT) -> None:
        """Return when it has ended by itself, in good order."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the engine did not end") from None
        assert status == 0, f"the engine ended with status {status}: {self.said()}"
