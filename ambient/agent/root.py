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
from ambient.agent.convergence import Convergence
from ambient.agent.enrolment import Enrolment
from ambient.agent.knock import Knocks
from ambient.agent.scrape import Scrape
from ambient.agent.telemetry import Telemetry
from ambient.agent.worlds import Worlds
from ambient.capture import cgroups, check, netns, sockdiag
from ambient.capture.capture import Capture
from ambient.capture.errors import CaptureError
from ambient.dataplane import abi, process
from ambient.dataplane.engine import Engine
from ambient.dataplane.engines import Engines, Superseded
from ambient.dataplane.pods import LocalPods, context_id
from ambient.dataplane.proxy import Proxy
from ambient.dataplane.ways import Ways
from ambient.dataplane.wire import Message
from ambient.identity.ca_dir import CaUnusable
from ambient.identity.store import CertificateStore
from ambient.identity.svid import Svid
from ambient.model.world import World
from ambient.observe.admin import AdminServer
from ambient.observe.http import HttpServer
from ambient.observe.journal import Journal
from ambient.observe.metrics import Metrics
from ambient.observe.paths import Paths

T = TypeVar("T")
CANNOT_GO_ON = (CaUnusable, CaptureError, process.EngineFailed, OSError)  # their texts say what to do
_ROLES = frozenset(map(int, abi.Role))
log = logging.getLogger(__name__)

# An app's first bytes wait for the other side's 200: a request that is tried at a second endpoint was seen by no first.
FLAGS = abi.SettingsFlag.ACKNOWLEDGES | abi.SettingsFlag.NO_EARLY_DATA
HANDOVER_S = 5.0  # an agent that was sent away lets go of capture within 1 s


class Agent:
    """One node's agent: start(), then run() until it is told to stop or another agent takes over."""

    capture: Capture
    ways: Ways
    enrolment: Enrolment
    convergence: Convergence

    def __init__(self, settings: config.AgentSettings) -> None:
        self.settings = settings
        self._stop = asyncio.Event()
        self._binary = settings.engine_binary or process.BINARY
        self._build = ""  # of the engines we start
        self._brought = 0  # the last one's pid
        self._tasks: set[asyncio.Task[None]] = set()
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
        self.telemetry = Telemetry(self.journal, self.metrics, self.paths.ended, self.knocks.ended)
        self.proxy = Proxy(
            self.world,
            self.pods,
            self.telemetry,
            first_id=time.time_ns(),
            clock=time.monotonic,
            rng=random.Random(),
        )
        self.engines = Engines(
            settings.run_dir,
            abi.Settings(**dataclasses.asdict(settings.engine), flags=FLAGS),
            bring=self._bring_engine,
            is_wanted=lambda engine: not settings.own_engine or (not engine.leaving and engine.build == self._build),
            stash=settings.stash,
            drain_timeout_s=settings.drain_timeout_s,
            make_sockets=lambda cookie, count: self.in_order(lambda: self.capture.make_sockets(cookie, count)),
            on_message=self.proxy.on_message,
            on_idle=lambda cookie: self._spawn("idle", self.enrolment.idle(cookie)),
            on_joined=self._engine_joined,
            on_gone=self._engine_gone,
        )
        self.proxy.serve(self.engines)

    @property
    def world(self) -> World:
        """What is judged by."""
        return self.worlds.world

    async def start(self) -> None:
        """Take the node over. Raises CaptureError or EngineFailed, with what to do."""
        if self.settings.own_engine:
            self._build = await process.build(self._binary)
        rows = await self.engines.attach()
        deadline = time.monotonic() + HANDOVER_S
        try:
            self.capture = await self.in_order(
                lambda: Capture.open(
                    self.settings.cgroup, self.settings.bpffs, wait=max(0.0, deadline - time.monotonic())
                )
            )
        except CaptureError:
            await self._take_engine_back()
            raise
        for pid in self.engines.pids:
            await self._exempt(pid)
        await self.in_order(lambda: self.capture.clear_clients(self.engines.pids))
        self.engines.set_clients_map(self.capture.clients_map_fd)
        self.enrolment = Enrolment(
            self.settings.node,
            self.settings.cgroup,
            self.capture,
            self.engines,
            self.store,
            self.pods,
            self.in_order,
            self.cni.sandboxes.netns_of,
            lambda key: self.proxy.touched([f"wl:{key}"]),
        )
        self.ways = Ways(
            self.capture.direct,
            self.proxy.decisions,
            self.pods,
            self.telemetry,
            world=lambda: self.world,
            in_order=self.in_order,
            touched=self.proxy.touched,
            answered=self.proxy.answered,
            lease_s=self.settings.lease_s,
            unfit=await self.unfit(),
        )
        self.proxy.let_pass(self.ways, self.enrolment.cookie_of)
        listeners, contexts = _listeners(rows.messages)
        self.enrolment.inherit(listeners, contexts)
        kept = {cookie: next(iter(each.values())) for cookie, each in listeners.items()}
        self.cni.sandboxes.restore(self.capture.enrolled(), lambda cookie: netns.of_socket(kept[cookie]))
        self.convergence = Convergence(
            self.worlds,
            self.proxy,
            self.ways,
            self.engines,
            self.capture,
            self.enrolment,
            self.in_order,
            inherited=rows.messages,
            is_leaving=lambda: self.cni.is_leaving,
            metrics=self.metrics,
            tell=self._tell,
        )

    async def run(self) -> None:
        """Raises what made a guarded task fail."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        scrape = Scrape(self)
        servers: list[AdminServer | HttpServer] = [
            AdminServer(self.settings.run_dir / "admin.sock", Admin(self, scrape).handlers),
            HttpServer(self.settings.metrics_port, {"/metrics": scrape.metrics_page}),
            HttpServer(
                self.settings.health_port,
                {"/healthz/ready": scrape.ready_page, "/healthz/live": scrape.live_page},
                address=self.settings.health_address,
            ),
        ]
        try:
            for server in servers:
                await server.start()
            await self.cni.start(self.worlds, self.enrolment, self.convergence.settle)
            await self._until_one_ends(
                {
                    "certificates": self.store.run(),
                    "engines": self.engines.run(),
                    "engines' doors": self.engines.watch(),
                    "direct": self.ways.run(),
                    "source": self.convergence.follow(self._upstream.watch()),
                    **self._upstream.jobs(),
                    "converge": self.convergence.run(),
                    "tick": self.convergence.tick(),
                    "cni": self._keep_plugin(),
                    "stop": self._stopped(),
                }
            )
        finally:
            for server in servers:
                await server.close()
            await self.cni.close()
            if self.cni.is_leaving:
                await self.engines.end()
            await self.engines.hush()
            self.ways.ended.drain()  # what ends later the next agent will find
            self.journal.close()
            await self.in_order(self.capture.uninstall if self.cni.is_leaving else self.capture.close)
            self._capturing.shutdown()

    async def in_order(self, work: Callable[[], T]) -> T:
        """Run blocking work of the capture beside the event loop, one piece at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._capturing, work)

    def not_ready(self) -> list[str]:
        """What readiness waits for, by name."""
        blockers = [] if self.engines.attached else ["engine"]
        blockers += [f"engine {pid}: does not answer" for pid in self.engines.silent]
        if not self.convergence.revision:
            blockers.append("first-world")
        blockers += [f"capture: {problem}" for problem in self.convergence.problems.values()]
        blockers += [self.cni.problem] if self.cni.problem else []
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

    def _tell(self) -> None:
        self._upstream.tell(self.enrolment.captured(), self.enrolment.failures, self.world.workloads)

    async def _keep_plugin(self) -> None:
        await self.convergence.first()
        await self.cni.run()

    async def _stopped(self) -> None:
        await self._stop.wait()

    # What others call

    async def _bring_engine(self) -> None:
        """One of our own, or, where somebody else starts them, the next one."""
        settings = self.settings
        if settings.own_engine:
            own = config.own_cgroup(config.cgroup2_root())
            self._brought = await process.start(
                settings.run_dir,
                settings.engine_threads,
                process.cgroup_for_engine(own, settings.cgroup),
                binary=self._binary,
            )
        else:
            await process.appear(settings.run_dir)

    async def _take_engine_back(self) -> None:
        """One that we have just started, and that nobody has given anything: it would wait for ever."""
        if self._brought:
            os.kill(self._brought, signal.SIGINT)
            await process.gone(self._brought)

    async def unfit(self) -> str:
        """Why nothing may go past the engine on this node; empty: it may. What is let through must be ended one day."""
        obstacle = await self.in_order(sockdiag.obstacle)
        if obstacle:
            log.warning(
                "every connection passes through the engine, because a direct one could not be ended: %s", obstacle
            )
        return obstacle

    async def _exempt(self, pid: int) -> None:
        """An engine's own dials are not captured; each one may have a cgroup of its own."""
        tree = cgroups.root()
        cgroup = await self.in_order(lambda: cgroups.of(pid, tree))
        await self.in_order(lambda: self.capture.exempt(cgroup))

    async def _engine_joined(self, engine: Engine) -> None:
        """Before it dials anything."""
        try:
            await self._exempt(engine.pid)
        except CaptureError as error:  # it died meanwhile, or is not where engines belong
            raise process.EngineFailed(f"what engine {engine.pid} dials would be captured: {error}") from error

    async def _engine_gone(self, engine: Engine, left: frozenset[int]) -> None:
        """What it told apps about their clients is void."""
        if not engine.drained:
            self.metrics.engine_died()
        await self.in_order(lambda: self.capture.clear_clients(left))

    def _certificate(self, svid: Svid) -> None:
        expires = int(svid.not_after.timestamp() * 1e9)
        self.engines.set_context(context_id(svid.identity), expires, svid.chain_pem, svid.key_pem, svid.roots_pem)
        self.enrolment.certificate(svid.identity)
        self._spawn("readiness", self.convergence.look_again())

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
            "revision": self.convergence.revision,
            "ready": not self.not_ready(),
            "blockers": self.not_ready(),
            "errors": self.convergence.errors,
            "not_direct": self.ways.unfit,
            "agent_pid": os.getpid(),
            "engine_pid": self.engines.pid,
            "leaving": self.enrolment.leaving,
            "daemonset_gone": self.cni.gone,
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

    Every worker lists all sockets; the copies are closed. So are those of roles that only a later version has.
    """
    found: dict[int, dict[abi.Role, socket.socket]] = {}
    contexts: dict[int, int] = {}
    for row in rows:
        if isinstance(row.body, abi.Listen):
            sock = socket.socket(fileno=row.fds[0])
            if row.body.role not in _ROLES:
                sock.close()
                continue
            if found.setdefault(row.body.pod, {}).setdefault(abi.Role(row.body.role), sock) is not sock:
                sock.close()
            if row.body.context:
                contexts[row.body.pod] = row.body.context
    return found, contexts


async def main(settings: config.AgentSettings) -> None:
    """Run one agent to its end."""
    kernel = check.kernel(os.uname().release)
    if not kernel.ok:  # tried all the same: distributions bring features to older kernels
        log.warning("%s: %s, and no older one is tested. `ambient check` says what works", kernel.found, kernel.fix)
    agent = Agent(settings)
    await agent.start()
    await agent.run()
