"""The composition root of a control plane's replica: makes every part, wires them, names and guards every long task.

All replicas serve: the World, certificates, nodes' reports. What is written for everybody (policies' status, published
roots) one of them writes at a time, under a Lease. Nothing is kept here that the API server does not have.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from ambient import config
from ambient.control import api
from ambient.control.authority import ClusterAuthority
from ambient.control.bundle import Bundle
from ambient.control.ca import ControlCA
from ambient.control.callers import Callers
from ambient.control.captures import Captures
from ambient.control.contests import Contests
from ambient.control.enforcement import Enforcement
from ambient.control.events import Events
from ambient.control.lease import Lease
from ambient.control.pages import Pages
from ambient.control.status import Statuses
from ambient.identity import ca_files
from ambient.identity.ca_state import CaUnusable
from ambient.model.world import World
from ambient.observe.http import HttpServer, listen
from ambient.sources import kubernetes
from ambient.xds import credentials
from ambient.xds.ca_server import CertificateService
from ambient.xds.node_server import NodeService
from ambient.xds.retry import pause
from ambient.xds.server import DiscoveryServer
from ambient.xds.serving import Server

CANNOT_GO_ON = (kubernetes.NoCluster, api.ApiError, OSError, ValueError)  # their texts say what to do
AGENT = "ambient-agent"  # the ServiceAccount that may call
SERVICE = "ambient-control"  # by whose DNS name agents know us
LEASE = "ambient-control"
DRAIN_S = 5.0  # agents leave for other replicas within it, one after the other
FOUND_S = 30.0  # between two tries at founding a CA at most: somebody is restoring one, or the API server is away
GRACE_S = 2.0  # for short calls under way at the end
log = logging.getLogger(__name__)


class Control:
    """One replica: run() until it is told to stop."""

    def __init__(self, settings: config.ControlSettings, at_first_world: Callable[[], None] = lambda: None) -> None:
        """`at_first_world`: called when it is there, before anybody is served. Raises NoCluster; ValueError for a bad
        trust domain."""
        self.settings = settings
        self._at_first_world = at_first_world
        self.world = World.build(mesh=settings.mesh)
        self.source_errors: tuple[str, ...] = ()
        self.port = 0  # that agents are served on; 0: not yet
        self._rng = random.Random()
        self._first = asyncio.Event()  # a World is there
        self._stop = asyncio.Event()
        self._client = kubernetes.connect(settings.kubeconfig)
        self._api = api.LightkubeApi(self._client)
        self._authority = ClusterAuthority(self._api, settings.namespace, settings.mesh.trust_domain)
        names = [f"{SERVICE}.{settings.namespace}.svc", f"{SERVICE}.{settings.namespace}.svc.cluster.local"]
        source = ca_files.watch(settings.ca_files) if settings.ca_files else self._authority.watch()
        self.ca = ControlCA(source, names)
        self.outcomes = kubernetes.Outcomes()
        self.events = Events(self._api, settings.replica)
        self.callers = Callers(self._api, accounts=[f"{settings.namespace}/{AGENT}"], world=lambda: self.world)
        self.discovery = DiscoveryServer(self.callers.authenticate, settings.replica)
        self.certificates = CertificateService(
            authenticate=self.callers.authenticate, world=lambda: self.world, sign=self.ca.sign
        )
        captures = Captures(
            self._api, self.events, world=lambda: self.world, is_marked=lambda workload: workload.captured
        )
        nodes = NodeService(authenticate=self.callers.authenticate, apply=captures.apply)
        self._server = Server({**self.discovery.handlers(), **self.certificates.handlers(), **nodes.handlers()})
        self.lease = Lease(
            self._api, settings.namespace, LEASE, f"{settings.replica}_{uuid.uuid4().hex[:8]}"
        )  # of this process, not of one of the same name before it

    @property
    def not_ready(self) -> list[str]:
        """What readiness waits for, by name."""
        blockers = [] if self._first.is_set() else ["first-world", *self.source_errors]
        return blockers + ([f"ca: {self.ca.error}"] if not self.ca.is_ready else [])

    async def run(self) -> None:
        """Raises what made a guarded task fail, and CANNOT_GO_ON."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        pages = Pages(self)
        servers = [
            HttpServer(self.settings.metrics_port, {"/metrics": pages.metrics}),
            HttpServer(self.settings.health_port, {"/healthz/ready": pages.ready, "/healthz/live": pages.live}),
        ]
        try:
            for server in servers:
                await server.start()
            await self._until_one_ends(
                {
                    "ca": self.ca.run(),
                    "source": self._watch(),
                    "roots": self._tell_roots(),
                    "serve": self._serve(),
                    "events": self.events.run(),
                    "lease": self.lease.run(self._write),
                    "stop": self._stopped(),
                }
            )
        finally:
            for server in servers:
                await server.close()
            await self._server.stop()
            await self._client.close()

    # Tasks

    async def _until_one_ends(self, jobs: dict[str, Coroutine[Any, Any, None]]) -> None:
        guarded = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
        try:
            done, _ = await asyncio.wait(guarded, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in guarded:
                task.cancel()
            await asyncio.gather(*guarded, return_exceptions=True)
        for task in done:
            task.result()

    async def _watch(self) -> None:
        """The source's Worlds; its errors are kept beside the last one."""
        async for item in kubernetes.watch(self._client, self.settings.mesh, outcomes=self.outcomes):
            if isinstance(item, World):
                self.source_errors = ()
                self.world = item
                self.discovery.publish(item)
                if not self._first.is_set():
                    self._at_first_world()
                    self._first.set()
            else:
                self.source_errors = item.errors
                log.error("%s", item)
        raise RuntimeError("the source ended")

    async def _tell_roots(self) -> None:
        await self._first.wait()
        async for pem in self.ca.watch_roots():
            self.discovery.publish(self.world, pem)

    async def _serve(self) -> None:
        """Until told to stop: then agents are sent to other replicas before the last connection is closed."""
        await asyncio.gather(self._first.wait(), self.ca.ready())
        tls = credentials.Renewed(self.ca.serving)
        listener = listen(self.settings.grpc_port)
        await self._server.start(listener, tls)
        self.port = listener.getsockname()[1]
        log.info("serving agents on port %s", self.port)
        await self._stop.wait()
        await self.discovery.drain(DRAIN_S)
        await self._server.stop(GRACE_S)

    async def _stopped(self) -> None:
        """Once we serve, the serving ends by itself when told to."""
        await self._stop.wait()
        if not self.not_ready:
            await asyncio.sleep(DRAIN_S + 2 * GRACE_S)

    async def _write(self) -> None:
        """What one replica at a time says to everybody, and the CA that one of them founds."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Statuses(self._api, self.events).run(self.outcomes.follow()), name="statuses")
            enforcement = Enforcement(self._api, self.settings.namespace, lambda: self.world)
            tasks.create_task(enforcement.run(), name="enforcement")
            tasks.create_task(Contests(self.events, lambda: self.world).run(), name="contests")
            if self.settings.ca_files is None:
                tasks.create_task(self._found(), name="founding")
            tasks.create_task(Bundle(self._api, self.settings.namespace).publish(self.ca.watch_roots()), name="bundle")

    async def _found(self) -> None:
        """See to it that there is a CA. Trouble does not end a replica, which may sign by what it had."""
        failures = 0
        while True:
            try:
                return await self._authority.found()
            except (CaUnusable, api.ApiError) as error:
                log.warning("there is no CA, and none is founded: %s", error)
                failures += 1
                await asyncio.sleep(pause(failures, self._rng, last=FOUND_S))


async def main(settings: config.ControlSettings, at_first_world: Callable[[], None]) -> None:
    """Run one replica to its end."""
    await Control(settings, at_first_world).run()
