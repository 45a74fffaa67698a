"""Sockets made in pods' network namespaces, brought to the workers that run low. Decides how many, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping

from ambient.dataplane import abi
from ambient.dataplane.desired import PodState
from ambient.dataplane.link import Link
from ambient.dataplane.wire import Message

log = logging.getLogger(__name__)

BUSY_S = 0.1  # a worker that asks for a pod's sockets again so soon gets as many as one message holds


class Stocking:
    def __init__(
        self, pods: Mapping[int, PodState], make_sockets: Callable[[int, int], Awaitable[list[socket.socket]]]
    ) -> None:
        """`make_sockets(cookie, n)`: fresh sockets of a pod's netns."""
        self._pods, self._make_sockets = pods, make_sockets
        self._tasks: set[asyncio.Task[None]] = set()

    def restock(self, link: Link, cookie: int, want: int) -> None:
        """Answer STASH_LOW of one worker."""
        if (pod := self._pods.get(cookie)) is None:
            return
        now = asyncio.get_running_loop().time()
        if now - pod.restocked.get(id(link), -BUSY_S) < BUSY_S:
            want = max(want, abi.FDS_MAX)
        pod.restocked[id(link)] = now
        task = asyncio.get_running_loop().create_task(self._bring(link, cookie, want), name=f"stash of pod {cookie}")
        self._tasks.add(task)
        task.add_done_callback(self._brought)

    async def settled(self) -> None:
        """Return when all that was asked for is under way."""
        await asyncio.gather(*self._tasks)

    async def _bring(self, link: Link, cookie: int, want: int) -> None:
        for start in range(0, want, abi.FDS_MAX):
            if cookie not in self._pods or not link.is_open:
                return
            fds = [sock.detach() for sock in await self._make_sockets(cookie, min(want - start, abi.FDS_MAX))]
            link.send(Message(abi.Type.STASH, abi.PodRef(pod=cookie, have=len(fds)), fds=fds, give=True))

    def _brought(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s: no sockets made: %s", task.get_name(), task.exception())
