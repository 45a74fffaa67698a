"""Ask an agent's admin socket one thing. Blocking: for the CLI and the lab, never for the agent."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

ANSWER_MAX = 256 * 1024 * 1024  # bytes: a million connections; beyond it something is wrong
CHUNK = 1 << 16


class Unreachable(Exception):
    """No agent behind that path; the text says what was tried, found, and what to do."""


class Forbidden(Unreachable):
    """Only root may ask."""


class NoAnswer(Unreachable):
    """An agent took the question and went silent or away."""


class Refused(Exception):
    """The agent answered with an error; the text is the agent's. Handlers raise it to say no."""


def call(path: Path | str, verb: str, *, deadline_s: float = 30.0, **args: object) -> Any:
    """The verb's result. `deadline_s` is for the whole exchange. Raises Unreachable, NoAnswer or Refused."""
    return result(exchange(path, request(verb, **args), repr(verb), deadline_s=deadline_s), str(path))


def request(verb: str, **args: object) -> bytes:
    return json.dumps({"verb": verb, **args}).encode() + b"\n"


def exchange(path: Path | str, asked: bytes, what: str, *, deadline_s: float) -> bytes:
    """One line there, one line back; `what`: it is called when it fails. Raises Unreachable or NoAnswer."""
    until = time.monotonic() + deadline_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(deadline_s)
        _connect(sock, str(path))
        try:
            with contextlib.suppress(BrokenPipeError):  # an agent that refuses a client answers and closes unasked
                sock.sendall(asked)
            return _read_line(sock, until)
        except TimeoutError:
            raise NoAnswer(f"the agent at {path} did not answer {what} within {deadline_s:g} s; see its log") from None
        except OSError as error:
            raise NoAnswer(f"the agent at {path} went away during {what} ({error}); see its log") from error


def result(line: bytes, where: str) -> Any:
    """What the answer says. Raises NoAnswer for what no agent says, Refused for an agent's no."""
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    match answer:
        case {"error": error}:
            raise Refused(str(error))
        case {"ok": found}:
            return found
    raise NoAnswer(f"what answers at {where} is no Ambient agent: it said {line[:60]!r}")


def _connect(sock: socket.socket, path: str) -> None:
    try:
        sock.connect(path)
    except FileNotFoundError:
        raise Unreachable(f"there is no admin socket {path}: is the agent running?") from None
    except ConnectionRefusedError:
        if not Path(path).is_socket():
            raise Unreachable(f"{path} is no socket: an agent's is admin.sock in its --run-dir") from None
        raise Unreachable(f"nobody listens at {path}: its agent has died; start it again") from None
    except PermissionError:
        raise Forbidden(f"may not open {path}: it is for root only; use sudo") from None
    except (OSError, ValueError) as error:  # e.g. a path beyond the 107 bytes a unix socket may have
        raise Unreachable(f"cannot connect to {path}: {error}") from error


def _read_line(sock: socket.socket, until: float) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        sock.settimeout(max(until - time.monotonic(), 0.001))
        part = sock.recv(CHUNK)
        if not part:
            raise ConnectionResetError("closed before its answer was complete")
        line += part
        if len(line) > ANSWER_MAX:
            raise ConnectionAbortedError(f"its answer is longer than {ANSWER_MAX} bytes")
    return bytes(line)
