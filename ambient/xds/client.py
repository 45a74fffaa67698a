"""The agent's source: Worlds from a control plane, by delta ADS. The I/O around xds.picture.

Reconnects for ever, first to whichever replica answers. While there is none the last World stays in force, and how long
that has been so is said; a reconnection never passes through an empty World.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from google.protobuf import message

from ambient import __version__
from ambient.model.errors import SourceError
from ambient.model.mesh import MeshConfig
from ambient.model.world import World
from ambient.xds import names
from ambient.xds.call import Call, RpcFailed, Status
from ambient.xds.dial import ControlPlane, dial
from ambient.xds.picture import Picture
from ambient.xds.proto import discovery_pb2 as pb

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeName:
    """Who asks. The control plane believes the token; this is for its logs, and for istiod, which wants this form."""

    node: str
    pod: str = "ambient-agent"
    namespace: str = "ambient-system"
    ip: str = "0.0.0.0"  # none to tell

    def message(self) -> pb.Node:
        found = pb.Node(
            id=f"ztunnel~{self.ip}~{self.pod}.{self.namespace}~{self.namespace}.svc.cluster.local",
            user_agent_name="ambient",
            user_agent_version=__version__,
            client_features=[names.MORE],
        )
        found.metadata.update({"NODE_NAME": self.node, "NAMESPACE": self.namespace})
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    first_s: float = 0.01  # before the second attempt: most failures are one replica's
    longest_s: float = 15.0  # between two attempts of a long outage; its average is half of it
    quiet_s: float = 5.0  # an outage that ends sooner is no news: a replica was replaced


class Client:
    def __init__(
        self,
        control: ControlPlane,
        node: NodeName,
        mesh: MeshConfig,
        *,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """mesh: until the control plane tells another."""
        self.picture = Picture(mesh)
        self._control = control
        self._node = node.message()
        self._patience = patience or Patience()
        self._clock = clock
        self._rng = rng or random.Random()
        self._cut_at: float | None = clock()  # None: in step with the control plane
        self._roots = asyncio.Condition()

    @property
    def disconnected_s(self) -> float:
        """For how long nothing was heard that could be relied on; 0: in step with the control plane."""
        return 0.0 if self._cut_at is None else self._clock() - self._cut_at

    async def watch(self) -> AsyncGenerator[World | SourceError, None]:
        """Each next World; a SourceError for an outage that lasts, and the World again when it is over. Never ends.

        The first item tells what is there now. A World may contradict itself (an address is two pods' for a moment):
        what is in dispute is nobody's there, and picture.problems names it.
        """
        told: World | SourceError | None = None
        delay = self._patience.first_s
        while True:
            began = self._clock()
            try:
                async with contextlib.aclosing(self._session()) as session:
                    async for world in session:
                        if world is not told:
                            told = world
                            yield world
            except RpcFailed as error:
                problem = SourceError([f"no control plane: {error}"], self._revision)
            if self._cut_at is None:
                self._cut_at = self._clock()
            log.log(logging.INFO if self._quiet else logging.WARNING, "%s", problem)
            if not self._quiet and not (isinstance(told, SourceError) and told.errors == problem.errors):
                told = problem
                yield problem
            lasted = self._clock() - began > self._patience.quiet_s
            delay = self._patience.first_s if lasted else min(2 * delay, self._patience.longest_s)
            await asyncio.sleep(self._rng.uniform(0, delay))

    async def watch_roots(self) -> AsyncGenerator[bytes, None]:
        """The trusted roots (PEM) as soon as the control plane has told, and again at every change. Never ends."""
        known = b""
        while True:
            async with self._roots:
                await self._roots.wait_for(lambda: self.picture.roots != known)  # noqa: B023 - waits within this turn
                known = self.picture.roots
            yield known

    @property
    def _quiet(self) -> bool:
        return self.picture.world is not None and self.disconnected_s < self._patience.quiet_s

    @property
    def _revision(self) -> str:
        return self.picture.world.revision if self.picture.world else ""

    async def _session(self) -> AsyncGenerator[World, None]:
        """One connection's Worlds; the last known one again when it turns out to be still true. Raises RpcFailed."""
        async with dial(self._control, self._rng) as (channel, metadata):
            call = channel.call(METHOD, metadata)
            for request in self.picture.connect(self._node):
                await call.send(request.SerializeToString())
            while True:
                roots = self.picture.roots
                answer, world = self.picture.receive(await _response(call))
                if answer.HasField("error_detail"):
                    log.error("refused of what %s sent: %s", self.picture.replica, answer.error_detail.message)
                await call.send(answer.SerializeToString())
                if self.picture.roots != roots:
                    async with self._roots:
                        self._roots.notify_all()
                if self.picture.complete:
                    self._cut_at = None
                    if found := world or self.picture.world:
                        yield found


async def _response(call: Call) -> pb.DeltaDiscoveryResponse:
    data = await call.receive()
    if data is None:
        raise RpcFailed(Status.UNAVAILABLE, "the control plane ended the stream")
    try:
        return pb.DeltaDiscoveryResponse.FromString(data)
    except message.DecodeError as error:
        raise RpcFailed(Status.INTERNAL, f"what came is no DeltaDiscoveryResponse: {error}") from error
