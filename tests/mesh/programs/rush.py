"""Load that goes on while something happens to the mesh: connections that stay and talk, others that come and go."""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Coroutine
from typing import Any

_loop = asyncio.new_event_loop()
PATIENCE_S = 30.0
SAID_EVERY_S = 0.05


class Rush:
    """`errors`: of the members that stay, and of the newcomers, by kind. Times are seconds."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.said = self.came = 0
        self.stall = self.slowest = 0.0
        self.lost: collections.Counter[str] = collections.Counter()
        self.failed: collections.Counter[str] = collections.Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = _loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def member(self, to: str, port: int, number: int) -> None:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(to, port), PATIENCE_S)
            while not self.over.is_set():
                self.stall = max(self.stall, await _echo(reader, writer, f"{number} {self.said}"))
                self.said += 1
                await asyncio.sleep(SAID_EVERY_S)
            writer.close()
        except (OSError, TimeoutError, EOFError) as error:
            self.lost[type(error).__name__] += 1

    async def newcomer(self, to: str, port: int) -> None:
        began = time.monotonic()
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(to, port), PATIENCE_S)
            await _echo(reader, writer, f"new {self.came}")
            writer.close()
        except (OSError, TimeoutError, EOFError) as error:
            self.failed[type(error).__name__] += 1
        else:
            self.came += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    async def newcomers(self, to: str, ports: list[int], rate: int) -> None:
        due, number = time.monotonic(), 0
        while not self.over.is_set():
            self.spawn(self.newcomer(to, ports[number % len(ports)]))
            number += 1
            due += 1 / rate
            await asyncio.sleep(due - time.monotonic())


_rush = Rush()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> float:
    """How long the answer took."""
    began = time.monotonic()
    writer.write(f"echo {text}\n".encode())
    reply = await asyncio.wait_for(reader.readuntil(), PATIENCE_S)
    if reply != text.encode() + b"\n":
        raise OSError(f"answered {reply[:40]!r}")
    return time.monotonic() - began


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    if not _loop.is_running():
        threading.Thread(target=_loop.run_forever, daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, _loop).result()


def begin(to: str, ports: list[int], members: int, rate: int) -> dict[str, Any]:
    """`members` connections that say a line every 50 ms, and `rate` new ones a second. Returns when all have spoken."""

    async def work() -> dict[str, Any]:
        global _rush
        _rush = Rush()
        for number in range(members):
            _rush.spawn(_rush.member(to, ports[number % len(ports)], number))
        while _rush.said < members and not _rush.lost:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
        if rate:
            _rush.spawn(_rush.newcomers(to, ports, rate))
        return {"lost": _rush.lost}

    return _run(work())


def so_far(anew: bool = False) -> dict[str, Any]:
    """What there is to tell. `anew`: measuring of the longest stall and the slowest newcomer begins again."""

    async def work() -> dict[str, Any]:
        rush = _rush
        found = {"said": rush.said, "lost": rush.lost, "came": rush.came, "failed": rush.failed}
        found |= {"stall": rush.stall, "slowest": rush.slowest}
        if anew:
            rush.stall = rush.slowest = 0.0
        return found

    return _run(work())


def end() -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        _rush.over.set()
        await asyncio.gather(*_rush.tasks, return_exceptions=True)
        return {}

    _run(work())
    return so_far()
