"""Plaintext connections to our own pods, to see them refused. Sends no byte; what came of one says its access record.

Made from the node's own network, where the mesh is not: what anybody outside the mesh would meet.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from ambient.model.mesh import IPAddress
from ambient.observe.records import Ending, Flow

VERDICT_S = 1.5  # for a connection to be judged; it takes a millisecond
AT_ONCE = 32  # knocks of one question


@dataclass(slots=True)
class Knocks:
    """Recognises the records of its own connections among all that end."""

    _awaited: dict[str, asyncio.Future[Flow]] = field(default_factory=dict)  # by our port and where it was dialled

    def ended(self, flow: Flow, *endings: Ending) -> None:
        """Of every connection: costs nothing while nobody asks, which is nearly always."""
        if not self._awaited or flow.reporter != "destination":
            return
        for ending in endings:
            awaited = self._awaited.get(_key(ending.source.rpartition(":")[2], ending.destination))
            if awaited is not None and not awaited.done():
                awaited.set_result(flow)

    async def at(self, doors: Sequence[tuple[IPAddress, int]]) -> list[dict[str, object]]:
        """What each met: `outcome` is refused, let in, unanswered or unreachable; a refusal has reason and rule."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(ip: IPAddress, port: int) -> dict[str, object]:
            async with room:
                return {"address": _shown(ip, port), **await self._one(ip, port)}

        return await asyncio.gather(*(one(*door) for door in doors))

    async def _one(self, ip: IPAddress, port: int) -> dict[str, object]:
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            sock.bind(("", 0))  # its record may come before connect() has returned: the port must be known by then
            key = _key(str(sock.getsockname()[1]), _shown(ip, port))
            verdict = self._awaited[key] = asyncio.get_running_loop().create_future()
            try:
                problem = await _connect(sock, ip, port)
                await asyncio.wait([verdict], timeout=VERDICT_S)
                sock.close()  # if it was let in, this is its end
                await asyncio.wait([verdict], timeout=VERDICT_S)
            finally:
                del self._awaited[key]
        if not verdict.done():
            return {"outcome": "unreachable" if problem else "unanswered", "reason": problem, "rule": ""}
        flow = verdict.result()
        return {"outcome": "refused" if flow.verdict == "deny" else "let in", "reason": flow.reason, "rule": flow.rule}


async def _connect(sock: socket.socket, ip: IPAddress, port: int) -> str:
    """Empty, or why not. A reset may be the refusal that is hoped for: only its record can tell."""
    try:
        async with asyncio.timeout(VERDICT_S):
            await asyncio.get_running_loop().sock_connect(sock, (str(ip), port))
    except TimeoutError:
        return "its SYN was not answered"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return ""


def _key(port: str, to: str) -> str:
    return f"{port} {to}"


def _shown(ip: IPAddress, port: int) -> str:
    """As records show it."""
    return f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}"
