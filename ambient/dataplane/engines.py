"""The engines of this node: one takes what comes, older ones finish what they carry, and the agent hears them all.

Which one serves follows from who is there, so the next agent finds the same: the youngest that was not told to leave.
It is given everything first; when it has shown that it works, the others drain. If it dies then, they take it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ambient.dataplane import abi, doors, process
from ambient.dataplane.desired import Desired, PodState
from ambient.dataplane.engine import Engine
from ambient.dataplane.inventory import Inventories, Rows
from ambient.dataplane.link import Link
from ambient.dataplane.stocking import Stocking
from ambient.dataplane.wire import Message

log = logging.getLogger(__name__)

INVENTORY_TIMEOUT = 10.0  # seconds; an engine answers within milliseconds, unless it is stopped
LAST_S, GONE_S = 1, 5.0  # at the end of it all: how long they may carry on, and are waited for
AGAIN_S, AGAIN_MOST_S = 1.0, 60.0  # what failed is tried again so soon, doubling


class Superseded(Exception):
    """Another agent attached to our engines: this one has nothing left to do."""


def choose(engines: Sequence[Engine]) -> Engine:
    """Who takes what comes. Names are in the order of starts."""
    return max(engines, key=lambda engine: (not engine.leaving, engine.name))


class Engines:
    def __init__(
        self,
        run_dir: Path,
        settings: abi.Settings,
        *,
        bring: Callable[[], Awaitable[object]],
        is_wanted: Callable[[Engine], bool],
        stash: int,
        drain_timeout_s: int,
        make_sockets: Callable[[int, int], Awaitable[list[socket.socket]]],
        on_message: Callable[[Link, Message], None],
        on_idle: Callable[[int], None],
        on_joined: Callable[[Engine], Awaitable[None]],
        on_gone: Callable[[Engine, frozenset[int]], Awaitable[None]],
    ) -> None:
        """`bring()`: returns when there is another engine. `is_wanted(engine)`: else another is brought beside it.

        `make_sockets(cookie, n)`: fresh sockets of a pod's netns. `on_idle(cookie)`: a pod that left is served no more.
        `on_joined(engine)`: it came while we ran; awaited before it is given anything, and may raise EngineFailed.
        `on_gone(engine, pids)`: it died, or has finished; these are left.
        """
        self.silent: list[int] = []  # pids of those that were asked in vain, and have not answered since
        self._run_dir, self._bring, self._is_wanted = run_dir, bring, is_wanted
        self._drain_timeout_s = drain_timeout_s
        self._on_message, self._on_idle, self._on_joined, self._on_gone = on_message, on_idle, on_joined, on_gone
        self._desired = Desired(settings, stash)
        self._stocking = Stocking(self._desired.pods, make_sockets)
        self._inventories = Inventories()
        self._engines: list[Engine] = []
        self._busy: dict[int, set[Link]] = {}  # pods that were told to leave: the workers that still serve them
        self._news = asyncio.Event()  # who is there, or what they are for, may have changed
        self._strangers: set[str] = set()  # engines we cannot speak with
        self._renew_at, self._pause = 0.0, AGAIN_S  # not before; and then not again for so long

    @property
    def attached(self) -> bool:
        return bool(self._engines) and choose(self._engines).attached

    @property
    def pid(self) -> int:
        """Of the one that takes what comes; 0: none."""
        return choose(self._engines).pid if self._engines else 0

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(engine.pid for engine in self._engines)

    def status(self) -> list[dict[str, object]]:
        return [engine.status() for engine in self._engines]

    # What they must know

    def set_clients_map(self, fd: int) -> None:
        self.send(self._desired.clients_map(fd))

    def listen(self) -> None:
        """Have questions and records told from now on. Until then they wait in the engines."""
        self._desired.listening = True
        self.send(self._desired.settings())
        self._news.set()

    def set_context(self, number: int, expires_at_ns: int, cert: bytes, key: bytes, roots: bytes) -> None:
        self.send(self._desired.context(number, expires_at_ns, cert, key, roots))

    def keep_contexts(self, numbers: frozenset[int]) -> None:
        """Forget all others, here and in the engines: nobody is to find the keys of who is no more on this node."""
        self.send(*self._desired.only_contexts(numbers))

    def add_pod(self, pod: PodState) -> None:
        """Serve a pod; again to change its context. The listening sockets stay the caller's."""
        self._desired.pods[pod.cookie] = pod
        for engine in self._engines:
            if engine.serving:
                self._introduce(engine, pod)

    def leave_pod(self, cookie: int) -> None:
        """Accept nothing more for a pod; one IDLE follows, when the last worker's last connection of it ended."""
        self._desired.pods.pop(cookie, None)
        self._busy[cookie] = set(self._links())
        self.send(Message(abi.Type.LEAVE, abi.Ref(id=cookie)))

    def send(self, *messages: Message) -> None:
        """To every worker of every engine."""
        for engine in self._engines:
            engine.send(*messages)

    def restock(self, link: Link, cookie: int, want: int) -> None:
        """Answer STASH_LOW of one worker."""
        self._stocking.restock(link, cookie, want)

    # Life

    async def attach(self) -> Rows:
        """Attach to those that run, or have one started. Returns their inventory. Raises EngineFailed."""
        await self._meet(at_once=True)
        found = bool(self._engines)
        if not found:
            await self._bring_first()
        self._serve(choose(self._engines))
        self._news.set()
        return await self.inventory(answers=True, conns=True, listeners=True) if found else Rows()

    async def run(self) -> None:
        """Keep an engine that serves; never returns. Raises Superseded, or EngineFailed."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._part()
            await self._meet()
            if not self._engines:
                await self._bring_first()
                await self._on_joined(self._engines[0])
            await self._hand_over()
            await self._renew()

    async def watch(self) -> None:
        """Notice those that others start; never returns."""
        async for _ in doors.changes(self._run_dir):
            known = {engine.name for engine in self._engines} | self._strangers
            if not known.issuperset(doors.engines(self._run_dir)):
                self._news.set()

    async def end(self) -> None:
        """The mesh is taken off this node: they leave, and what is left in them a moment later is cut."""
        for engine in self._engines:
            engine.drain(LAST_S)
        with contextlib.suppress(TimeoutError):  # of one that is stopped
            async with asyncio.timeout(GONE_S):
                await asyncio.gather(*map(process.gone, self.pids))

    async def hush(self) -> None:
        """Hear no more: what is not acknowledged when this returns they tell the next agent."""
        for engine in self._engines:
            await engine.hush()

    async def barrier(self) -> None:
        """Return when every worker has dealt with all that was sent so far."""
        await self.inventory()

    async def inventory(
        self, of: Engine | None = None, *, answers: bool = False, conns: bool = False, listeners: bool = False
    ) -> Rows:
        """Of one engine or all of them. Raises TimeoutError, which names those that do not answer."""
        links = of.links if of is not None else self._links()
        number, rows = self._inventories.begin(links)
        body = abi.Inventory(id=number, answers=answers, conns=conns, listeners=listeners)
        for link in links:
            link.send(Message(abi.Type.INVENTORY, body))
        try:
            async with asyncio.timeout(INVENTORY_TIMEOUT):
                await rows.done.wait()
        except TimeoutError:
            self.silent = sorted({engine.pid for engine in self._engines if not rows.waiting.isdisjoint(engine.links)})
            raise TimeoutError(f"engine {', '.join(map(str, self.silent))} does not answer: is it stopped?") from None
        finally:
            self._inventories.end(number)
        self.silent = []
        return rows

    def _links(self) -> list[Link]:
        return [link for engine in self._engines for link in engine.links]

    async def _bring_first(self) -> None:
        await self._bring()
        await self._meet(at_once=True)
        if not self._engines:
            raise process.EngineFailed(f"the engine just started in {self._run_dir} does not answer")

    async def _meet(self, *, at_once: bool = False) -> None:
        """Attach to those we have not met. `at_once`: what cannot be attached to is raised, and nobody hears of others.

        Else it is left alone: those we have go on.
        """
        for name in doors.engines(self._run_dir):
            if name in self._strangers or any(engine.name == name for engine in self._engines):
                continue
            engine = Engine(self._run_dir, name, self._heard, self._news.set)
            try:
                alive = await engine.attach()
                if alive and not at_once:
                    await self._on_joined(engine)
            except process.EngineFailed as error:
                engine.close()
                if at_once:
                    raise
                if isinstance(error, process.AnotherVersion):
                    self._strangers.add(name)
                self._again(f"{name} is not used: {error}", AGAIN_S)
                continue
            if not alive:
                doors.remove(self._run_dir, name)
                continue
            log.info("engine %d (%s) is there", engine.pid, engine.build)
            self._engines.append(engine)

    async def _part(self) -> None:
        """Forget those that are gone."""
        for engine in [engine for engine in self._engines if not engine.attached]:
            await engine.hush()  # some of its workers may be attached still
            engine.close()
            for link in engine.links:
                self._inventories.lost(link)
            if await _still_alive(engine.pid):
                raise Superseded(
                    f"engine {engine.pid} lives, but our attachment is over ({engine.lost}): another agent has it"
                )
            if engine.drained:
                log.info("engine %d is gone, which carried on what it had", engine.pid)
            else:
                log.error("engine %d died, and its connections with it", engine.pid)
            self._engines.remove(engine)
            doors.remove(self._run_dir, engine.name)
            await self._on_gone(engine, self.pids)
            for cookie, links in tuple(self._busy.items()):
                for link in engine.links:
                    self._idle(link, cookie, links)

    def _serve(self, engine: Engine) -> None:
        engine.serving, engine.drained = True, False
        engine.send(*self._desired.all())
        for pod in self._desired.pods.values():
            self._stock(engine, pod)

    def _introduce(self, engine: Engine, pod: PodState) -> None:
        engine.send(*self._desired.pod(pod))
        self._stock(engine, pod)

    def _stock(self, engine: Engine, pod: PodState) -> None:
        for link in engine.links:
            self.restock(link, pod.cookie, self._desired.stash)

    async def _hand_over(self) -> None:
        """Whoever is to take what comes has the listening sockets; and then nobody else."""
        chosen = choose(self._engines)
        if not chosen.serving:
            log.info("engine %d takes what comes from now on", chosen.pid)
            self._serve(chosen)
        if not self._desired.listening:
            return  # no pod is known yet, and no listening socket: who has them keeps them until then
        try:
            await self.inventory(chosen)
        except TimeoutError as error:
            self._again(f"nothing is taken from its predecessor: {error}", AGAIN_S)
            return
        for engine in self._engines:
            if engine is not chosen and not engine.drained and chosen.attached:
                log.info("engine %d carries what it has to the end", engine.pid)
                engine.drain(self._drain_timeout_s)

    async def _renew(self) -> None:
        """Bring another where the one that takes what comes is not what we want. It goes on meanwhile."""
        if self._is_wanted(choose(self._engines)):
            self._pause = AGAIN_S
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._renew_at:
            loop.call_at(self._renew_at, self._news.set)
            return
        pause = self._pause
        self._renew_at, self._pause = loop.time() + pause, min(pause * 2, AGAIN_MOST_S)
        try:
            await self._bring()
        except process.EngineFailed as error:
            self._again(f"engine {self.pid} goes on, no other could be started: {error}", pause)
        else:
            self._news.set()

    def _again(self, why: str, pause: float) -> None:
        log.error("%s; trying again in %g s", why, pause)
        asyncio.get_running_loop().call_later(pause, self._news.set)

    def _heard(self, link: Link, message: Message) -> None:
        match message.type:
            case abi.Type.ROW_ANSWER | abi.Type.ROW_CONN | abi.Type.ROW_LISTENER | abi.Type.ROW_END:
                self._inventories.heard(link, message)
            case abi.Type.IDLE:
                assert isinstance(message.body, abi.PodRef)
                if (links := self._busy.get(message.body.pod)) is not None:
                    self._idle(link, message.body.pod, links)
            case _:
                self._on_message(link, message)

    def _idle(self, link: Link, cookie: int, links: set[Link]) -> None:
        """One worker has no connection of a pod left."""
        links.discard(link)
        if not links and self._busy.pop(cookie, None) is not None:
            self._on_idle(cookie)


async def _still_alive(pid: int) -> bool:
    """A dying engine closes its sockets a moment before its pid goes."""
    try:
        async with asyncio.timeout(1.0):
            await process.gone(pid)
    except TimeoutError:
        return True
    return False
