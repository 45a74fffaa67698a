"""The admin socket: JSON lines over a unix stream socket, for the CLI and the lab. Knows no verb; handlers are given.

`{"verb": "...", ...args}` gets `{"ok": result}` or `{"error": "text"}`. A client that is slow, silent or talks nonsense
costs one bounded connection and nobody's time; one that has shut down its sending side still gets its answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ambient.observe.bound import Bound
from ambient.observe.client import NoAnswer, Refused, Unreachable, call

__all__ = ["AdminServer", "Handler", "NoAnswer", "Refused", "Unreachable", "call"]

Handler = Callable[[dict[str, Any]], Awaitable[object]]

LINE_MAX = 64 * 1024  # bytes of a request: the longest real one has some 300
CLIENTS_MAX = 64  # at once; only root can connect, so more is a leak in somebody's script
IDLE_S = 60.0  # silence between requests
HANDLER_S = 120.0  # for a verb to answer: longer than any `wait` asks for, so that a vanished client's request ends too
WRITE_S = 10.0  # for the client to take an answer
log = logging.getLogger(__name__)


class AdminServer:
    """Serves `path` (mode 0600) from start() to close()."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler], *, idle_s: float = IDLE_S) -> None:
        self._path = path
        self._handlers = handlers
        self._idle_s = idle_s
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._bound: Bound | None = None

    async def start(self) -> None:
        """Replaces the socket a dead agent left. Raises OSError where a living one answers."""
        self._bound = Bound(self._path, CLIENTS_MAX)
        self._server = await asyncio.start_unix_server(self._client, sock=self._bound.sock, limit=LINE_MAX)

    async def close(self) -> None:
        """Ends every client's connection and removes the socket, unless another agent has put its own there."""
        if self._server is None or self._bound is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        self._bound.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > CLIENTS_MAX:
                await _send(writer, {"error": f"more than {CLIENTS_MAX} clients at once; close some"})
                return
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # it went away, took no answer, or we are closing: its connection ends either way
        finally:
            self._clients.discard(task)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # it takes nothing: do not wait for it
            else:
                writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    line = await reader.readline()
            except ValueError:  # StreamReader's word for a line beyond its limit
                await _send(writer, {"error": f"a request is one line of at most {LINE_MAX} bytes"})
                return
            if not line.endswith(b"\n"):
                return
            await _send(writer, await self._answer(line))

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
        except ValueError as error:
            return {"error": f"the request is not JSON: {error}"}
        verb = request.pop("verb", None) if isinstance(request, dict) else None
        if not isinstance(verb, str):
            return {"error": 'a request is an object like {"verb": "status"}'}
        handler = self._handlers.get(verb)
        if handler is None:
            return {"error": f"no verb {verb!r}; there are {', '.join(sorted(self._handlers))}"}
        try:
            async with asyncio.timeout(HANDLER_S) as limit:
                return {"ok": await handler(request)}
        except TimeoutError as error:
            if not limit.expired():  # of what the handler asked
                return {"error": f"{verb}: {str(error) or 'what it needs did not answer in time'}"}
            return {"error": f"{verb} took longer than {HANDLER_S:.0f} s"}
        except (Refused, ValueError) as error:  # the request's fault
            return {"error": str(error)}
        except Exception as error:  # ours: the client is told, the agent goes on
            log.exception("admin verb %s failed", verb)
            return {"error": f"{verb} failed in the agent: {type(error).__name__}: {error}; its log has the details"}


async def _send(writer: asyncio.StreamWriter, answer: dict[str, object]) -> None:
    writer.write(json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
    async with asyncio.timeout(WRITE_S):
        await writer.drain()
