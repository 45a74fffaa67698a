"""The engine as the agent sees it: there is always one, it knows what it must know, and messages reach all its workers.

Holds the desired state (settings, contexts, pods with their listening sockets) and replays it to whatever engine is
there: one that outlived an earlier agent, or a new one after a death. It decides nothing about connections.
"""

from __future__ import annotations

import array
import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ambient.dataplane import abi, process
from ambient.dataplane.link import Link, broadcast
from ambient.dataplane.pods import listener_id
from ambient.dataplane.wire import Message

log = logging.getLogger(__name__)

HELLO_TIMEOUT = 5.0  # seconds; an engine greets at once
BUSY_S = 0.1  # a worker that asks for a pod's sockets again so soon gets as many as one message holds
INVENTORY_TIMEOUT = 10.0  # seconds; an engine answers within milliseconds, unless it is stopped


class Superseded(Exception):
    """Another agent attached to our engine: this one has nothing left to do."""


@dataclass(slots=True)
class PodState:
    cookie: int
    family: socket.AddressFamily
    context: int
    listeners: Mapping[abi.Role, socket.socket]
    restocked: dict[int, float] = field(default_factory=dict)  # by worker: when, by the loop's clock


@dataclass(slots=True)
class Rows:
    """An inventory: what every worker listed, in the order it came."""

    messages: list[Message] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Engine:
    def __init__(
        self,
        run_dir: Path,
        settings: abi.Settings,
        *,
        bring: Callable[[], Awaitable[object]],
        stash: int,
        make_sockets: Callable[[int, int], Awaitable[list[socket.socket]]],
        on_message: Callable[[Link, Message], None],
        on_idle: Callable[[int], None],
        on_started: Callable[[], Awaitable[None]],
    ) -> None:
        """`bring()`: returns when there is an engine again. `make_sockets(cookie, n)`: fresh sockets of a pod's netns.

        `on_idle(cookie)`: one that left serves no more.
        `on_started`: a new engine runs; one that was found does not count.
        """
        self.pid = 0
        self.start_at = 0
        self._run_dir, self._bring = run_dir, bring
        self._settings, self._stash, self._make_sockets = settings, stash, make_sockets
        self._on_message, self._on_idle, self._on_started = on_message, on_idle, on_started
        self._clients_map: int | None = None
        self._contexts: dict[int, Message] = {}
        self._kept: frozenset[int] | None = None  # contexts the engine may have; None: not said yet
        self._pods: dict[int, PodState] = {}
        self._listening = False
        self._links: list[Link] = []
        self._lost: asyncio.Event = asyncio.Event()
        self._hello: dict[Link, asyncio.Future[abi.Hello]] = {}
        self._inventories: dict[int, Rows] = {}
        self._numbers = itertools.count(1)
        self._busy: dict[int, set[int]] = {}  # pods that were told to leave: the workers that still serve them
        self._stocking: set[asyncio.Task[None]] = set()

    @property
    def attached(self) -> bool:
        return bool(self._links) and all(link.is_open for link in self._links)

    # Desired state

    def set_clients_map(self, fd: int) -> None:
        self._clients_map = fd
        self.send(Message(abi.Type.CLIENTS_MAP, fds=[fd]))

    def listen(self) -> None:
        """Have questions and records told from now on. Until then they wait in the engine."""
        self._listening = True
        self.send(Message(abi.Type.SETTINGS, self._settings))

    def set_context(self, number: int, expires_at_ns: int, cert: bytes, key: bytes, roots: bytes) -> None:
        body = abi.Context(
            context=number, expires_at=expires_at_ns, cert_len=len(cert), key_len=len(key), roots_len=len(roots)
        )
        self._contexts[number] = Message(abi.Type.CONTEXT, body, cert + key + roots)
        self.send(self._contexts[number])

    def keep_contexts(self, numbers: frozenset[int]) -> None:
        """Forget all others, here and in the engine: nobody is to find the keys of who is no more on this node."""
        for gone in self._contexts.keys() - numbers:
            del self._contexts[gone]
        if numbers != self._kept:
            self._kept = numbers
            self.send(Message(abi.Type.CONTEXTS, abi.Contexts(count=len(numbers)), array.array("Q", numbers).tobytes()))

    def add_pod(self, pod: PodState) -> None:
        """Serve a pod; again to change its context. The listening sockets stay the caller's."""
        self._pods[pod.cookie] = pod
        self._introduce(pod)

    def leave_pod(self, cookie: int) -> None:
        """Accept nothing more for a pod; one IDLE follows, when the last worker's last connection of it ended."""
        self._pods.pop(cookie, None)
        self._busy[cookie] = {link.worker for link in self._links}
        self.send(Message(abi.Type.LEAVE, abi.Ref(id=cookie)))

    def send(self, *messages: Message) -> None:
        """To every worker."""
        broadcast(self._links, *messages)

    def restock(self, link: Link, cookie: int, want: int) -> None:
        """Answer STASH_LOW of one worker."""
        if (pod := self._pods.get(cookie)) is None:
            return
        now = asyncio.get_running_loop().time()
        if now - pod.restocked.get(link.worker, -BUSY_S) < BUSY_S:
            want = max(want, abi.FDS_MAX)
        pod.restocked[link.worker] = now
        task = asyncio.get_running_loop().create_task(self._stock(link, cookie, want), name=f"stash of pod {cookie}")
        self._stocking.add(task)
        task.add_done_callback(self._stocked)

    # Life

    async def attach(self) -> Rows:
        """Attach to the running engine, or start one. Returns its inventory. Raises process.EngineFailed."""
        found = await self._connect()
        if not found:
            await self._bring()
            if not await self._connect():
                raise process.EngineFailed(f"the engine just started in {self._run_dir} does not answer")
            log.info("engine %d started", self.pid)
            await self._on_started()
        else:
            log.info("engine %d was running: attached", self.pid)
        self._replay()
        return await self.inventory(answers=True, conns=True, listeners=True) if found else Rows()

    async def run(self) -> None:
        """Keep an engine; never returns. Raises Superseded when another agent took it over."""
        while True:
            await self._lost.wait()
            pid = self.pid
            for link in self._links:
                link.close()
            self._links = []
            for rows in self._inventories.values():
                rows.done.set()
            if await self._still_alive(pid):
                raise Superseded(f"engine {pid} lives but closed our attachment: another agent took over")
            log.error("engine %d died, and its connections with it: starting another", pid)
            await self.attach()
            for cookie in tuple(self._busy):  # what the dead engine carried is over
                self._idle(None, cookie)

    async def _still_alive(self, pid: int) -> bool:
        """A dying engine closes its sockets a moment before its pid goes."""
        try:
            await asyncio.wait_for(process.gone(pid), 1.0)
        except TimeoutError:
            return True
        return False

    async def barrier(self) -> None:
        """Return when every worker has dealt with all that was sent so far."""
        await self.inventory()

    async def inventory(self, *, answers: bool = False, conns: bool = False, listeners: bool = False) -> Rows:
        number = next(self._numbers)
        rows = Rows(waiting={id(link) for link in self._links if link.is_open})
        if not rows.waiting:
            return rows
        self._inventories[number] = rows
        self.send(
            Message(abi.Type.INVENTORY, abi.Inventory(id=number, answers=answers, conns=conns, listeners=listeners))
        )
        try:
            await asyncio.wait_for(rows.done.wait(), INVENTORY_TIMEOUT)
        finally:
            del self._inventories[number]
        return rows

    async def _connect(self) -> bool:
        """Attach to every worker of a living engine. False when there is none."""
        self._lost.clear()
        links: list[Link] = []
        try:
            first = await self._greet(0)
            links.append(first[0])
            for worker in range(1, first[1].workers):
                links.append((await self._greet(worker))[0])
        except (FileNotFoundError, ConnectionRefusedError):  # nobody listens: there is no engine
            for link in links:
                link.close()
            return False
        except ConnectionError as error:
            raise process.EngineFailed(f"the engine in {self._run_dir} hung up while greeting: {error}") from error
        self.pid, self.start_at = first[1].pid, first[1].start_at
        self._links = links
        return True

    async def _greet(self, worker: int) -> tuple[Link, abi.Hello]:
        link = Link(self._run_dir / f"engine.{worker}.sock", self._on_messages, self._on_lost)
        self._hello[link] = asyncio.get_running_loop().create_future()
        try:
            hello = await asyncio.wait_for(self._hello[link], HELLO_TIMEOUT)
        except TimeoutError:
            pid = link.peer_pid()
            link.close("no HELLO")
            raise process.EngineFailed(
                f"engine {pid} in {self._run_dir} is there but says nothing for {HELLO_TIMEOUT:g} s; a second one "
                "beside it would leave its connections without policy. "
                f"Let it run again (kill -CONT {pid}) or end it (kill -9 {pid})"
            ) from None
        finally:
            del self._hello[link]
        if hello.abi != abi.ABI:
            link.close("another ABI")
            raise process.EngineFailed(
                f"the engine {hello.pid} in {self._run_dir} speaks version {hello.abi}, this agent {abi.ABI}: "
                "start an agent of its version, or end it (its connections end with it)"
            )
        link.worker = hello.worker
        return link, hello

    def _replay(self) -> None:
        if self._listening:
            self.send(Message(abi.Type.SETTINGS, self._settings))
        if self._clients_map is not None:
            self.send(Message(abi.Type.CLIENTS_MAP, fds=[self._clients_map]))
        self.send(*self._contexts.values())
        for pod in self._pods.values():
            self._introduce(pod)

    def _introduce(self, pod: PodState) -> None:
        self.send(Message(abi.Type.POD, abi.Pod(pod=pod.cookie, stash_family=pod.family, stash_want=self._stash)))
        for role, sock in pod.listeners.items():
            body = abi.Listen(
                listener=listener_id(pod.cookie, role),
                pod=pod.cookie,
                context=pod.context if role is abi.Role.INBOUND_TUNNEL else 0,
                role=role,
            )
            self.send(Message(abi.Type.LISTEN, body, fds=[sock.fileno()]))
        for link in self._links:
            self.restock(link, pod.cookie, self._stash)

    async def _stock(self, link: Link, cookie: int, want: int) -> None:
        for start in range(0, want, abi.FDS_MAX):
            if cookie not in self._pods or not link.is_open:
                return
            fds = [sock.detach() for sock in await self._make_sockets(cookie, min(want - start, abi.FDS_MAX))]
            link.send(Message(abi.Type.STASH, abi.PodRef(pod=cookie, have=len(fds)), fds=fds, give=True))

    def _stocked(self, task: asyncio.Task[None]) -> None:
        self._stocking.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s: no sockets made: %s", task.get_name(), task.exception())

    def _on_messages(self, link: Link, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message.body, abi.Conn):
                message.body.id |= link.worker << 56  # every worker counts from 1
            match message.body:
                case abi.Hello() as hello:
                    greeting = self._hello.get(link)
                    if greeting is not None and not greeting.done():
                        greeting.set_result(hello)
                case abi.Ref() as end:
                    self._row_end(link, end.id)
                case abi.PodRef() as pod if message.type is abi.Type.IDLE:
                    self._idle(link, pod.pod)
                case _ if message.type in (abi.Type.ROW_ANSWER, abi.Type.ROW_CONN, abi.Type.ROW_LISTENER):
                    # Workers answer inventories in the order they were asked: a row belongs to the oldest unfinished.
                    pending = next((r for r in self._inventories.values() if id(link) in r.waiting), None)
                    if pending is not None:
                        pending.messages.append(message)
                case _:
                    self._on_message(link, message)

    def _idle(self, link: Link | None, cookie: int) -> None:
        """One worker (None: every worker) has no connection of a pod left."""
        busy = self._busy.get(cookie)
        if busy is None:
            return
        busy.discard(link.worker) if link else busy.clear()
        if not busy:
            del self._busy[cookie]
            self._on_idle(cookie)

    def _row_end(self, link: Link, number: int) -> None:
        rows = self._inventories.get(number)
        if rows is not None:
            rows.waiting.discard(id(link))
            if not rows.waiting:
                rows.done.set()

    def _on_lost(self, link: Link, reason: str) -> None:
        greeting = self._hello.get(link)
        if greeting is not None and not greeting.done():
            greeting.set_exception(ConnectionError(reason))
        if link in self._links:
            self._lost.set()
