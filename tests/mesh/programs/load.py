"""Many connections at once for the puppet: an asyncio loop in a thread of its own, so that a crowd can be kept."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Coroutine
from typing import Any

_loop = asyncio.new_event_loop()
_crowd: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
AT_ONCE = 64  # SYNs under way: the test is about connections, not about accept queues


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    if not _loop.is_running():
        threading.Thread(target=_loop.run_forever, daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, _loop).result()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> str:
    """Empty, or what went wrong."""
    try:
        writer.write(f"echo {text}\n".encode())
        reply = await asyncio.wait_for(reader.readline(), 30)
    except (OSError, TimeoutError) as error:
        return type(error).__name__
    return "" if reply == text.encode() + b"\n" else f"answered {reply[:40]!r}"


def crowd(to: str, port: int, count: int) -> dict[str, Any]:
    """Open `count` connections and keep them; each says a line."""

    async def one(turn: asyncio.Semaphore, number: int) -> str:
        async with turn:
            try:
                pair = await asyncio.wait_for(asyncio.open_connection(to, port), 30)
            except (OSError, TimeoutError) as error:
                return type(error).__name__
            _crowd.append(pair)
            return await _echo(*pair, f"member {number}")

    async def work() -> dict[str, Any]:
        turn = asyncio.Semaphore(AT_ONCE)
        said = await asyncio.gather(*(one(turn, number) for number in range(count)))
        return {"open": len(_crowd), "errors": collections.Counter(filter(None, said))}

    return _run(work())


def crowd_says(text: str) -> dict[str, Any]:
    """Every connection of the crowd says a line at the same time."""

    async def work() -> dict[str, Any]:
        said = await asyncio.gather(*(_echo(*pair, text) for pair in _crowd))
        return {"errors": collections.Counter(filter(None, said))}

    return _run(work())


def crowd_leaves() -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        for _, writer in _crowd:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in _crowd), return_exceptions=True)
        _crowd.clear()
        return {}

    return _run(work())


def churn(to: str, ports: list[int], count: int, at_once: int = 32) -> dict[str, Any]:
    """`count` connections of one line each, `at_once` under way."""

    async def work() -> dict[str, Any]:
        errors: collections.Counter[str] = collections.Counter()
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                try:
                    reader, writer = await asyncio.wait_for(asyncio.open_connection(to, ports[number % len(ports)]), 30)
                except (OSError, TimeoutError) as error:
                    errors[type(error).__name__] += 1
                    continue
                if problem := await _echo(reader, writer, f"short {number}"):
                    errors[problem] += 1
                writer.close()

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return {"errors": errors}

    return _run(work())
