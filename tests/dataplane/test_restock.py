"""Sockets for an engine that runs low: how many, and for whom."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from ambient.dataplane import abi
from ambient.dataplane.engine import Engine, PodState
from ambient.dataplane.link import Link
from ambient.dataplane.wire import Message

COOKIE = 7


class FakeLink:
    worker, is_open = 0, True

    def __init__(self) -> None:
        self.came: list[int] = []

    def send(self, message: Message) -> None:
        for fd in message.fds:
            socket.socket(fileno=fd).close()
        self.came.append(len(message.fds))


async def _sockets(_cookie: int, count: int) -> list[socket.socket]:
    return [socket.socket() for _ in range(count)]


def an_engine(folder: Path) -> Engine:
    async def started() -> None:
        raise AssertionError("no engine is started here")

    nobody: Callable[..., None] = lambda *_: None  # noqa: E731 - nothing is said or gets idle here
    return Engine(
        folder,
        abi.Settings(),
        bring=started,
        stash=32,
        make_sockets=_sockets,
        on_message=nobody,
        on_idle=nobody,
        on_started=started,
    )


async def asked(engine: Engine, *pauses: float) -> list[int]:
    link = FakeLink()
    for pause in pauses:
        await asyncio.sleep(pause)
        engine.restock(cast(Link, link), COOKIE, 16)
    await asyncio.gather(*engine._stocking)
    return link.came


@pytest.mark.parametrize(
    ("pauses", "expected"),
    [
        pytest.param([0], [16], id="what was asked for"),
        pytest.param([0, 0.15], [16, 16], id="no more when asked again after a while"),
        pytest.param([0, 0], [16, abi.FDS_MAX], id="as many as a message holds when asked again at once"),
    ],
)
def test_a_worker_gets(tmp_path: Path, pauses: list[float], expected: list[int]) -> None:
    async def run() -> list[int]:
        engine = an_engine(tmp_path)
        engine.add_pod(PodState(COOKIE, socket.AF_INET, 0, {}))
        return await asked(engine, *pauses)

    assert asyncio.run(run()) == expected


def test_a_pod_that_left_gets_none(tmp_path: Path) -> None:
    async def run() -> list[int]:
        return await asked(an_engine(tmp_path), 0)

    assert asyncio.run(run()) == []
