"""The composition root of the node agent: makes every part, wires them, names and guards every long task.

Order of a start: certificates; the engine (attaching to a living one sends an earlier agent away); capture, which that
agent has then let go; the World; the pods; only then the engine's questions, which wait meanwhile.
Order of a change: decisions first (fail closed), then pods, then the revision counts as converged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ambient import config
from ambient.agent import upstream
from ambient.agent.admin import Admin
from ambient.agent.cni.parts import Cni
from ambient.agent.enrolment import Enrolment
from ambient.agent.knock import Knocks
from ambient.agent.scrape import Scrape
from ambient.agent.telemetry import Telemetry
from ambient.agent.worlds import Worlds
from ambient.capture import cgroups, host, netns
from ambient.capture.capture import Capture
from ambient.capture.errors import CaptureError
from ambient.dataplane import abi, process
from ambient.dataplane.engine import Engine, Superseded
from ambient.dataplane.pods import LocalPods, context_id
from ambient.dataplane.proxy import Proxy
from ambient.dataplane.wire import Message
from ambient.identity.ca_dir import CaUnusable
from ambient.identity.store import CertificateStore
from ambient.identity.svid import Svid
from ambient.model.mesh import IPAddress
from ambient.model.world import World
from ambient.observe.admin import AdminServer
from ambient.observe.http import HttpServer
from ambient.observe.journal import Journal
from ambient.observe.metrics import Metrics
from ambient.observe.paths import Paths

T = TypeVar("T")
CANNOT_GO_ON = (CaUnusable, CaptureError, process.EngineFailed, OSError)  # their texts say what to do
log = logging.getLogger(__name__)

# An app's first bytes wait for the other side's 200: a request that is tried at a second endpoint was seen by no first.
FLAGS = abi.SettingsFlag.ACKNOWLEDGES | abi.SettingsFlag.NO_EARLY_DATA
TICK_S = 5.0  # how often what has no event is looked after: pods not found yet, capture's integrity, old decisions
HANDOVER_S = 5.0  # an agent that was sent away lets go of capture within 1 s


class Agent:
    """One node's agent: start(), then run() until it is told to stop or another agent takes over."""

    capture: Capture
    enrolment: Enrolment

    def __init__(self, settings: config.AgentSettings) -> None:
        self.settings = settings
        self.revision = ""  # of the source, fully applied
        self.converged = asyncio.Condition()
        self.source_errors: list[str] = []
        self._changed = asyncio.Event()
        self._next: World | None = None
        self._asked = self._settled = 0  # convergences that were asked for, and done: see settle()
        self._stop = asyncio.Event()
        self._broken = ""  # what verify() could not mend
        self._tasks: set[asyncio.Task[None]] = set()
        self._inherited: list[Message] | None = []  # the inventory of an engine that outlived an agent; None: judged
        self._capturing = ThreadPoolExecutor(1, "capture")  # its calls block, and must not overlap

        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._upstream = upstream.of(settings)
        self.cni = Cni(settings)
        self.worlds = Worlds(settings.mesh, self.cni.sandboxes, self.cni.namespaces)
        self.metrics = Metrics()
        self.paths = Paths()
        self.knocks = Knocks()
        self.journal = Journal(sys.stdout.fileno())
        self.pods = LocalPods()
        self.store = CertificateStore(
            self._upstream.issuer,
            lifetime=datetime.timedelta(hours=settings.certificate_hours),
            on_change=self._certificate,
        )
        self.proxy = Proxy(
            self.world,
            self.pods,
            Telemetry(self.journal, self.metrics, self.paths.ended, self.knocks.ended),
            first_id=time.time_ns(),
            clock=time.monotonic,
            rng=random.Random(),
        )
        self.engine = Engine(
            settings.run_dir,
            abi.Settings(**dataclasses.asdict(settings.engine), flags=FLAGS),
            bring=self._bring_engine,
            stash=settings.stash,
            make_sockets=lambda cookie, count: self.in_order(lambda: self.capture.make_sockets(cookie, count)),
            on_message=self.proxy.on_message,
            on_idle=lambda cookie: self._spawn("idle", self.enrolment.idle(cookie)),
            on_started=self._engine_started,
        )
        self.proxy.serve(self.engine)

    @property
    def world(self) -> World:
        """What is judged by."""
        return self.worlds.world

    async def start(self) -> None:
        """Take the node over. Raises CaptureError or EngineFailed, with what to do."""
        rows = await self.engine.attach()
        deadline = time.monotonic() + HANDOVER_S
        self.capture = await self.in_order(
            lambda: Capture.open(self.settings.cgroup, self.settings.bpffs, wait=max(0.0, deadline - time.monotonic()))
        )
        await self._exempt_engine()
        if rows.messages:
            self.metrics.engine_started()  # by an earlier agent: what dies from now on is a restart
        else:
            await self.in_order(self.capture.clear_clients)
        self.engine.set_clients_map(self.capture.clients_map_fd)
        self.enrolment = Enrolment(
            self.settings.node,
            self.settings.cgroup,
            self.capture,
            self.engine,
            self.store,
            self.pods,
            self.in_order,
            self.cni.sandboxes.netns_of,
        )
        listeners, contexts = _listeners(rows.messages)
        self.enrolment.inherit(listeners, contexts)
        kept = {cookie: next(iter(each.values())) for cookie, each in listeners.items()}
        self.cni.sandboxes.restore(self.capture.enrolled(), lambda cookie: netns.of_socket(kept[cookie]))
        self._inherited = rows.messages

    async def run(self) -> None:
        """Raises what made a guarded task fail."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        scrape = Scrape(self)
        servers: list[AdminServer | HttpServer] = [
            AdminServer(self.settings.run_dir / "admin.sock", Admin(self, scrape).handlers),
            HttpServer(self.settings.metrics_port, {"/metrics": scrape.metrics_page}),
            HttpServer(self.settings.health_port, {"/healthz/ready": scrape.ready_page}),
        ]
        try:
            for server in servers:
                await server.start()
            await self.cni.start(self.worlds, self.enrolment, self.settle)
            await self._until_one_ends(
                {
                    "certificates": self.store.run(),
                    "engine": self.engine.run(),
                    "source": self._watch(),
                    **self._upstream.jobs(),
                    "converge": self._converge(),
                    "tick": self._tick(),
                    "cni": self._keep_plugin(),
                    "stop": self._stopped(),
                }
            )
        finally:
            for server in servers:
                await server.close()
            await self.cni.close()
            self.journal.close()
            await self.in_order(self.capture.uninstall if self.cni.is_leaving else self.capture.close)
            self._capturing.shutdown()

    async def in_order(self, work: Callable[[], T]) -> T:
        """Run blocking work of the capture beside the event loop, one piece at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._capturing, work)

    def not_ready(self) -> list[str]:
        """What readiness waits for, by name."""
        blockers = [] if self.engine.attached else ["engine"]
        if not self.revision:
            blockers.append("first-world")
        blockers += [problem for problem in (self._broken, self.cni.problem) if problem]
        missing = {pod.identity for pod in self.pods if self.store.get(pod.identity) is None}
        blockers += sorted(f"certificate {identity}" for identity in missing)
        return blockers + [f"pod {key}: {why}" for key, why in sorted(self.enrolment.failures.items())]

    # Tasks

    async def _until_one_ends(self, jobs: dict[str, Coroutine[Any, Any, None]]) -> None:
        guarded = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
        done, _ = await asyncio.wait(guarded, return_when=asyncio.FIRST_COMPLETED)
        for task in [*guarded, *self._tasks]:
            task.cancel()
        await asyncio.gather(*guarded, *self._tasks, return_exceptions=True)
        for task in done:
            try:
                task.result()
            except Superseded as error:
                log.warning("%s; leaving everything to it", error)

    async def _watch(self) -> None:
        """The source's Worlds, newest wins; its errors are kept beside the last good one."""
        async for item in self._upstream.watch():
            if isinstance(item, World):
                self.source_errors = []
                self._next = item
                self._changed.set()
            else:
                self.source_errors = list(item.errors)
                log.error("keeping the last good configuration: %s", item)
            self.metrics.config_errors = len(self.source_errors)
        raise RuntimeError("the source ended")

    async def _converge(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._next is None:
                continue  # before the first World nothing is judged, and nobody let go
            asked = self._asked
            self.proxy.host = await self.in_order(self._know_node)
            touched = await self.worlds.take(self._next)
            self.proxy.world = self.world
            self.proxy.revise(self.proxy.decisions.touched(touched))
            self.proxy.waiting.touched(touched)
            await self.enrolment.converge(self.world, nobody=self.cni.is_leaving)
            self._listen()
            self._tell()
            try:
                await self.engine.barrier()
            except TimeoutError:  # not converged: what was sent waits in its socket, and is asked after again
                log.error("engine %d does not answer: is it stopped?", self.engine.pid)  # noqa: TRY400 - as above
                self._changed.set()
                continue
            async with self.converged:
                self.revision = self.world.revision
                self._settled = asked
                self.converged.notify_all()

    def _know_node(self) -> frozenset[IPAddress]:
        found = host.addresses()
        self.capture.know_node(found)
        return found

    def _tell(self) -> None:
        self._upstream.tell(self.enrolment.captured(), self.enrolment.failures, self.world.workloads)

    async def settle(self) -> None:
        """Converge, taking in what is true now, and return when that is done."""
        self._asked += 1
        asked = self._asked
        self._changed.set()
        async with self.converged:
            await self.converged.wait_for(lambda: self._settled >= asked)

    async def _keep_plugin(self) -> None:
        async with self.converged:
            await self.converged.wait_for(lambda: self.revision != "")
        await self.cni.run()

    def _listen(self) -> None:
        """The first World is there: judge what an earlier agent allowed, then be asked."""
        if self._inherited is None:
            return
        self.proxy.inherit(self._inherited)
        self._inherited = None
        self.engine.listen()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                for mended in await self.in_order(self.capture.verify):
                    log.warning("capture was tampered with: %s", mended)
                self._broken = ""
            except CaptureError as error:
                self._broken = f"capture: {error}"
                log.error("capture is not whole: %s", error)  # noqa: TRY400 - the text is the whole story
            if await self.enrolment.moved() or self.enrolment.failures or self.cni.is_leaving:
                self._changed.set()
            asked = self.proxy.decisions.out_of_force()
            try:
                rows = await self.engine.inventory(answers=True)
            except TimeoutError:
                log.error("engine %d does not answer: is it stopped?", self.engine.pid)  # noqa: TRY400 - as above
                continue
            alive = [row.body.answer for row in rows.messages if isinstance(row.body, abi.AnswerRow)]
            self.proxy.decisions.drop_unused(asked, alive)

    async def _stopped(self) -> None:
        await self._stop.wait()

    # What others call

    async def _bring_engine(self) -> None:
        """One of our own, or, where somebody else starts them, the next one."""
        settings = self.settings
        if settings.own_engine:
            own = config.own_cgroup(config.cgroup2_root())
            await process.start(
                settings.run_dir, settings.engine_threads, process.cgroup_for_engine(own, settings.cgroup)
            )
        else:
            await process.appear(settings.run_dir)

    async def _exempt_engine(self) -> None:
        """The engine's own dials are not captured; each one may have a cgroup of its own."""
        tree = cgroups.root()
        cgroup = await self.in_order(lambda: cgroups.of(self.engine.pid, tree))
        await self.in_order(lambda: self.capture.exempt(cgroup))

    async def _engine_started(self) -> None:
        """A new engine carries nothing yet: what its predecessor told apps about their clients is void."""
        self.metrics.engine_started()
        if self.revision:
            await self._exempt_engine()
            await self.in_order(self.capture.clear_clients)

    def _certificate(self, svid: Svid) -> None:
        expires = int(svid.not_after.timestamp() * 1e9)
        self.engine.set_context(context_id(svid.identity), expires, svid.chain_pem, svid.key_pem, svid.roots_pem)
        self.enrolment.certificate(svid.identity)

    def _spawn(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        """A short task beside the guarded ones; its failure is logged, not lost."""
        task = asyncio.get_running_loop().create_task(job, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())

    def status(self) -> dict[str, object]:
        """What the lab and `ambient get` see first."""
        return {
            "node": self.settings.node,
            "revision": self.revision,
            "ready": not self.not_ready(),
            "blockers": self.not_ready(),
            "errors": self.source_errors,
            "agent_pid": os.getpid(),
            "engine_pid": self.engine.pid,
            "leaving": self.enrolment.leaving,
            "pods": {
                workload.key: {
                    "enrolled": workload.enrolled,
                    "captured": self.enrolment.is_captured(workload.key),
                    "reason": self.enrolment.failures.get(workload.key, ""),
                }
                for workload in self.world.workloads_on(self.settings.node)
            },
        }


def _listeners(rows: list[Message]) -> tuple[dict[int, dict[abi.Role, socket.socket]], dict[int, int]]:
    """The listening sockets and the contexts of an inventory, by netns cookie.

    Every worker lists all sockets; the copies are closed.
    """
    found: dict[int, dict[abi.Role, socket.socket]] = {}
    contexts: dict[int, int] = {}
    for row in rows:
        if isinstance(row.body, abi.Listen):
            sock = socket.socket(fileno=row.fds[0])
            if found.setdefault(row.body.pod, {}).setdefault(abi.Role(row.body.role), sock) is not sock:
                sock.close()
            if row.body.context:
                contexts[row.body.pod] = row.body.context
    return found, contexts


async def main(settings: config.AgentSettings) -> None:
    """Run one agent to its end."""
    agent = Agent(settings)
    await agent.start()
    await agent.run()
