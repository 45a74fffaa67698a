"""Sockets for an engine that runs low: how many, and for whom."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest

from ambient.dataplane import abi
from ambient.dataplane.desired import PodState
from ambient.dataplane.link import Link
from ambient.dataplane.stocking import Stocking
from ambient.dataplane.wire import Message

COOKIE = 7


class FakeLink:
    is_open = True

    def __init__(self) -> None:
        self.came: list[int] = []

    def send(self, message: Message) -> None:
        for fd in message.fds:
            socket.socket(fileno=fd).close()
        self.came.append(len(message.fds))


async def _sockets(_cookie: int, count: int) -> list[socket.socket]:
    return [socket.socket() for _ in range(count)]


async def asked(stocking: Stocking, *pauses: float) -> list[int]:
    link = FakeLink()
    for pause in pauses:
        await asyncio.sleep(pause)
        stocking.restock(cast(Link, link), COOKIE, 16)
    await stocking.settled()
    return link.came


@pytest.mark.parametrize(
    ("pauses", "expected"),
    [
        pytest.param([0], [16], id="what was asked for"),
        pytest.param([0, 0.15], [16, 16], id="no more when asked again after a while"),
        pytest.param([0, 0], [16, abi.FDS_MAX], id="as many as a message holds when asked again at once"),
    ],
)
def test_a_worker_gets(pauses: list[float], expected: list[int]) -> None:
    async def run() -> list[int]:
        return await asked(Stocking({COOKIE: PodState(COOKIE, socket.AF_INET, 0, {})}, _sockets), *pauses)

    assert asyncio.run(run()) == expected


def test_a_pod_that_left_gets_none() -> None:
    async def run() -> list[int]:
        return await asked(Stocking({}, _sockets), 0)

    assert asyncio.run(run()) == []
