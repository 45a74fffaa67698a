"""A client in a pod that does what the test says: one JSON object a line in, one out, in order.

Connections have names and stay open between commands; downloads and chats run in threads of their own meanwhile.
An answer has "error": empty, or reset, refused, closed, timeout, or the errno's name.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import hostile
import load
import pattern
import rush

connections: dict[str, socket.socket] = {}
jobs: dict[str, Job] = {}
slowness = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0  # what every timeout is multiplied by


class Closed(Exception):
    """The other end closed in good order where something was expected."""


def name_of(error: BaseException) -> str:
    match error:
        case ConnectionResetError() | BrokenPipeError():
            return "reset"
        case ConnectionRefusedError():
            return "refused"
        case TimeoutError():
            return "timeout"
        case Closed():
            return "closed"
        case OSError(errno=int() as number):
            return errno.errorcode.get(number, str(number))
    raise error


def show(address: tuple[Any, ...]) -> str:
    host = address[0].removeprefix("::ffff:")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def read_line(sock: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        part = sock.recv(65536)
        if not part:
            raise Closed
        line += part
    return line[:-1].decode()


class Job(threading.Thread):
    """Something that runs while the puppet takes further commands."""

    def __init__(self, work: Callable[[Job], None]) -> None:
        super().__init__(daemon=True)
        self.work, self.result = work, {"error": ""}
        self.stopping, self.go_on, self.progress = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        try:
            self.work(self)
        except (OSError, Closed) as error:
            self.result["error"] = name_of(error)
        self.progress.set()


def open_(name: str, to: str, port: int, timeout: float = 15.0, source: str = "", family: int = 0) -> dict[str, Any]:
    kind = {0: 0, 4: socket.AF_INET, 6: socket.AF_INET6}[family]
    target = socket.getaddrinfo(to, port, kind, socket.SOCK_STREAM)[0]
    sock = socket.socket(target[0], socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout * slowness)
        if source:
            sock.bind((source, 0))
        sock.connect(target[4])
    except OSError:
        sock.close()
        raise
    connections[name] = sock
    return {"local": show(sock.getsockname()), "remote": show(sock.getpeername())}


def say(name: str, text: str, timeout: float = 15.0) -> dict[str, Any]:
    """A line out, a line in."""
    sock = connections[name]
    sock.settimeout(timeout * slowness)
    sock.sendall(text.encode() + b"\n")
    return {"reply": read_line(sock)}


def ask(to: str, port: int, text: str, timeout: float = 15.0, **options: Any) -> dict[str, Any]:
    """A connection of its own for one line out and one in."""
    opened = open_("ask", to, port, timeout, **options)
    try:
        return opened | say("ask", text, timeout)
    except (OSError, Closed) as error:
        return opened | {"error": name_of(error)}
    finally:
        connections.pop("ask").close()


def option(name: str, level: int, option: int, value: int) -> dict[str, Any]:
    connections[name].setsockopt(level, option, value)
    return {}


def ended(name: str, timeout: float) -> dict[str, Any]:
    """Wait for the other end to end it: how, and after how many seconds."""
    sock, began = connections[name], time.monotonic()
    sock.settimeout(timeout * slowness)
    try:
        how = "data" if sock.recv(65536) else "closed"
    except OSError as error:
        how = name_of(error)
    return {"how": how, "after": time.monotonic() - began}


def close(name: str) -> dict[str, Any]:
    connections.pop(name).close()
    return {}


def names(name: str) -> dict[str, Any]:
    sock = connections[name]
    return {"local": show(sock.getsockname()), "remote": show(sock.getpeername())}


def download(name: str, size: int, pause_at: int = 0) -> dict[str, Any]:
    """Start reading `size` bytes; at `pause_at` stop reading until `resume`."""
    sock = connections[name]
    sock.settimeout(60 * slowness)
    checker = pattern.Checker()

    def work(job: Job) -> None:
        sock.sendall(f"download {size}\n".encode())
        while checker.received < size:
            data = sock.recv(min(1 << 20, size - checker.received))
            if not data:
                raise Closed
            checker.feed(data)
            job.result |= {"received": checker.received, "wrong_at": checker.wrong_at}
            if pause_at and checker.received >= pause_at and not job.progress.is_set():
                job.progress.set()
                job.go_on.wait()

    jobs[name] = Job(work)
    jobs[name].start()
    return {}


def chat(name: str, pause: float = 0.002) -> dict[str, Any]:
    """Say numbered lines, one after the other's answer, until `finish`."""
    sock = connections[name]
    sock.settimeout(20 * slowness)

    def work(job: Job) -> None:
        number, longest = 0, 0.0
        while not job.stopping.wait(pause):
            began = time.monotonic()
            sock.sendall(f"echo line {number}\n".encode())
            reply = read_line(sock)
            if reply != f"line {number}":
                job.result["error"] = f"line {number} came back as {reply!r}"
                return
            number += 1
            longest = max(longest, time.monotonic() - began)
            job.result |= {"lines": number, "longest": longest}
            job.progress.set()

    jobs[name] = Job(work)
    jobs[name].start()
    return {}


def newcomers(name: str, to: str, port: int, pause: float = 0.01) -> dict[str, Any]:
    """One new connection after the other until `finish`: how many worked, which failed and how, the slowest."""

    def work(job: Job) -> None:
        job.result |= {"worked": 0, "failed": [], "slowest": 0.0}
        while not job.stopping.wait(pause):
            began = time.monotonic()
            try:
                with socket.create_connection((to, port), timeout=20 * slowness) as sock:
                    sock.sendall(b"echo new\n")
                    read_line(sock)
                job.result["worked"] += 1
            except (OSError, Closed) as error:
                job.result["failed"].append(name_of(error))
            job.result["slowest"] = max(job.result["slowest"], time.monotonic() - began)
            job.progress.set()

    jobs[name] = Job(work)
    jobs[name].start()
    return {}


def progress(name: str, timeout: float = 20.0) -> dict[str, Any]:
    """Wait until the job has reached its pause, or something since the last time of asking."""
    if not jobs[name].progress.wait(timeout * slowness):
        raise TimeoutError
    return jobs[name].result


def fresh(name: str, times: int = 1, timeout: float = 20.0) -> dict[str, Any]:
    """Wait until the job has done something, so many times, from now on."""
    for _ in range(times):
        jobs[name].progress.clear()
        progress(name, timeout)
    return jobs[name].result


def resume(name: str) -> dict[str, Any]:
    jobs[name].go_on.set()
    return {}


def finish(name: str, timeout: float = 60.0, stop: bool = True) -> dict[str, Any]:
    """The job's result. `stop` False: wait for it to end by itself."""
    job = jobs.pop(name)
    job.go_on.set()
    if stop:
        job.stopping.set()
    job.join(timeout * slowness)
    return job.result | ({"error": "timeout"} if job.is_alive() else {})


def abort(name: str) -> dict[str, Any]:
    """Close with a reset."""
    sock = connections.pop(name)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    return {}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "open": open_,
    "say": say,
    "ask": ask,
    "option": option,
    "ended": ended,
    "close": close,
    "names": names,
    "download": download,
    "chat": chat,
    "newcomers": newcomers,
    "progress": progress,
    "fresh": fresh,
    "resume": resume,
    "finish": finish,
    "abort": abort,
    "crowd": load.crowd,
    "crowd_says": load.crowd_says,
    "crowd_leaves": load.crowd_leaves,
    "churn": load.churn,
    "rush": rush.begin,
    "rush_so_far": rush.so_far,
    "rush_ends": rush.end,
    "scan": hostile.scan,
    "scan_ends": hostile.scan_ends,
    "knock": hostile.knock,
}


def serve() -> None:
    print(json.dumps({"error": "", "ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"error": ""} | COMMANDS[command.pop("do")](**command)
        except (OSError, Closed) as error:
            answer = {"error": name_of(error)}
        print(json.dumps(answer), flush=True)


serve()
