"""One JSON object per line over a unix socket: how the CLI talks to a lab's daemon, and the daemon to the agents.

The shape is the agents' admin socket's: {"verb": ..., ...} -> {"ok": ...} or {"error": text, "kind": ...}. No verb is
known here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ambient.lab.errors import Gone, LabError, NotReady, from_wire

LINE_MAX = 64 << 20  # bytes: a request carries all manifests of an apply
Handler = Callable[[dict[str, Any]], Awaitable[object]]
log = logging.getLogger(__name__)


class AgentSaid(Exception):
    """An agent's error answer."""


def request(path: Path, verb: str, patience: float, /, **arguments: object) -> Any:
    """Ask the daemon and wait. Raises the LabError it answers with, or Gone."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience)
        try:
            sock.connect(str(path))
            sock.sendall(_line({"verb": verb, **arguments}))
            with sock.makefile("rb") as stream:
                line = stream.readline(LINE_MAX)
        except OSError as error:
            raise Gone(f"the lab's daemon does not answer on {path}: {error}") from error
    if not line.endswith(b"\n"):
        raise Gone(f"the lab's daemon ended before it answered {verb!r}; see {path.parent / 'lab.log'}")
    answer = json.loads(line)
    if "error" in answer:
        raise from_wire(answer.get("kind", ""), answer["error"], answer.get("changes", ()))
    return answer["ok"]


async def ask(path: Path, verb: str, **arguments: object) -> Any:
    """Ask an agent. Raises OSError when there is none, AgentSaid with its error."""
    reader, writer = await asyncio.open_unix_connection(path, limit=LINE_MAX)
    try:
        writer.write(_line({"verb": verb, **arguments}))
        line = await reader.readline()
    finally:
        writer.close()
    if not line.endswith(b"\n"):
        raise ConnectionResetError("the agent closed the connection before it answered")
    answer = json.loads(line)
    if "error" in answer:
        raise AgentSaid(answer["error"])
    return answer["ok"]


async def serve(listener: socket.socket, handlers: Mapping[str, Handler]) -> asyncio.Server:
    """Answer one request per connection on a listening socket."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line.endswith(b"\n"):
                writer.write(_line(await _answer(handlers, line)))
                await writer.drain()
        except OSError as error:
            log.info("a client went away: %s", error)
        finally:
            writer.close()

    return await asyncio.start_unix_server(client, sock=listener, limit=LINE_MAX)


async def _answer(handlers: Mapping[str, Handler], line: bytes) -> dict[str, object]:
    arguments = json.loads(line)
    try:
        return {"ok": await handlers[arguments.pop("verb")](arguments)}
    except NotReady as error:
        return {"error": str(error), "kind": error.kind, "changes": error.changes}
    except LabError as error:
        return {"error": str(error), "kind": error.kind}
    except Exception as error:  # ours: the client is told, the lab goes on
        log.exception("a request failed")
        return {"error": f"the lab failed: {type(error).__name__}: {error}; its log has the details"}


def _line(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
