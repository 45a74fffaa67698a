"""A node with any number of engines, and the agent's view of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

from ambient.dataplane import abi, process
from ambient.dataplane.desired import PodState
from ambient.dataplane.engine import Engine
from ambient.dataplane.engines import Engines

from .fake_engine import FakeEngine

COOKIE = 7


class Node:
    """A run directory, its engines, and the agent's view of them. `bring` is what starts one."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.fakes: list[FakeEngine] = []
        self.idle: list[int] = []
        self.gone: list[frozenset[int]] = []
        self.brought = 0
        self.bring: Callable[[], Awaitable[None]] = self._cannot
        self.build = "1"
        self.engines = Engines(
            run_dir,
            abi.Settings(answer_ms=5),
            bring=self._bring,
            is_wanted=lambda engine: not engine.leaving and engine.build == self.build,
            stash=0,
            drain_timeout_s=9,
            make_sockets=self._nothing,
            on_message=lambda *_: None,
            on_idle=self.idle.append,
            on_joined=self._joined,
            on_gone=self._gone,
        )

    def start(self, number: int, *, build: str = "1", mute: bool = False, **versions: int) -> FakeEngine:
        self.fakes.append(FakeEngine(self.run_dir, number, build=build, mute=mute, **versions))
        return self.fakes[-1]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Engines]:
        """Attached, and noticing what happens; raises what ended that."""
        await self.engines.attach()
        self.engines.listen()
        jobs = [asyncio.create_task(self.engines.run()), asyncio.create_task(self.engines.watch())]
        try:
            yield self.engines
        finally:
            for job in jobs:
                job.cancel()
            ends = await asyncio.gather(*jobs, return_exceptions=True)
        for end in ends:
            if not isinstance(end, asyncio.CancelledError):
                raise cast(BaseException, end)

    async def close(self) -> None:
        for fake in self.fakes:
            await fake.die()

    async def _bring(self) -> None:
        self.brought += 1
        await self.bring()

    async def _cannot(self) -> None:
        raise process.EngineFailed("it does not start")

    async def _nothing(self, *_: int) -> list[socket.socket]:
        return []

    async def _joined(self, _: Engine) -> None: ...

    async def _gone(self, _: Engine, left: frozenset[int]) -> None:
        self.gone.append(left)


def story(tmp_path: Path, tell: Callable[[Node], Awaitable[None]]) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        try:
            async with asyncio.timeout(10):
                await tell(node)
        finally:
            await node.close()

    asyncio.run(main())


@contextlib.contextmanager
def a_pod() -> Iterator[PodState]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield PodState(COOKIE, socket.AF_INET, 0, {abi.Role.OUTBOUND: sock})


def contexts(raw: bytes) -> set[int]:
    count = abi.Contexts.from_buffer_copy(raw).count
    return {int.from_bytes(raw[8 + 8 * i : 16 + 8 * i], "little") for i in range(count)}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not condition():  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
