"""Serves Worlds to agents: delta ADS. The I/O around xds.delta; where a World comes from is not known here.

publish() is the only way in: it encodes what changed, once, and every stream says what it has to. What an agent says
is taken in where it is read. Nobody is served from no World, or by a replica that is leaving: such a client goes to
another.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass

from google.protobuf import message

from ambient.model.world import World
from ambient.xds import caller as callers
from ambient.xds.call import Status
from ambient.xds.delta import BadRequest, Stream
from ambient.xds.names import IDENTIFIER
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.served import Aborted, ServerCall
from ambient.xds.serving import Handlers
from ambient.xds.snapshot import Snapshot
from ambient.xds.wording import Wording

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
AT_ONCE = 50  # streams that are made to speak before others get their turn
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """For metrics."""

    connected: int = 0  # streams, now
    refused: int = 0  # streams, because the caller is nobody
    pushes: int = 0  # responses
    pushed_bytes: int = 0
    nacks: int = 0  # responses of which a client refused a part


class Served:
    """One open stream: what is heard goes into the state machine, and what it wants to say is said."""

    def __init__(self, stream: Stream, call: ServerCall, counts: Counts) -> None:
        self.stream, self.call = stream, call
        self._counts = counts

    def hear(self, data: bytes | None) -> None:
        """A request; None: the client has said its last."""
        if data is None:
            self.call.finish()
            return
        try:
            request = pb.DeltaDiscoveryRequest.FromString(data)
            if refused := self.stream.receive(request):
                self._counts.nacks += 1
                log.error("%s refused a part of %s: %s", self.stream.node, request.type_url, refused)
        except (BadRequest, message.DecodeError) as error:
            self.call.finish(Status.INVALID_ARGUMENT, str(error))
            return
        self.speak()

    def speak(self) -> None:
        for response in self.stream.responses():
            self._counts.pushes += 1
            self._counts.pushed_bytes += len(response.body)
            self.call.send(response.body)


class DiscoveryServer:
    def __init__(self, authenticate: callers.Authenticate, replica: str) -> None:
        """replica: what clients' logs call this one."""
        self.counts = Counts()
        self._authenticate = authenticate
        self._identifier = IDENTIFIER + replica
        self._words = Wording(self._identifier)
        self._snapshot: Snapshot | None = None
        self._open: set[Served] = set()
        self._leaving = False

    def handlers(self) -> Handlers:
        """For a server."""
        return {f"/{SERVICE}/DeltaAggregatedResources": self._serve}

    def publish(self, world: World, roots: bytes | None = None) -> None:
        """The next World, and the certificates (PEM) that are trusted now; None: the same as before."""
        if self._snapshot is None:
            self._snapshot = Snapshot.of(world, roots or b"")
            return
        self._snapshot, changed = self._snapshot.advance(world, roots)
        for served in self._open:
            served.stream.publish(self._snapshot, changed)
        self._speak([*self._open])

    async def drain(self, spread_s: float) -> None:
        """Send every client to another replica, one after the other within the time given; take no new one."""
        self._leaving = True
        streams = [*self._open]
        random.shuffle(streams)
        for served in streams:
            served.call.finish(Status.UNAVAILABLE, f"{self._identifier} is leaving: connect to another")
            await asyncio.sleep(spread_s / len(streams))

    async def _counted(self, metadata: callers.Metadata) -> callers.Caller:
        try:
            return await self._authenticate(metadata)
        except callers.Unauthenticated:
            self.counts.refused += 1
            raise

    def _speak(self, streams: list[Served]) -> None:
        """With pauses: what else is to be done does not wait for a thousand agents."""
        for served in streams[:AT_ONCE]:
            served.speak()
        if rest := streams[AT_ONCE:]:
            asyncio.get_running_loop().call_soon(self._speak, rest)

    async def _serve(self, call: ServerCall) -> None:
        """One stream, to its end."""
        caller = await callers.admit(call.metadata, self._counted)
        if self._leaving or self._snapshot is None:
            why = "is leaving" if self._leaving else "has no World yet"
            raise Aborted(Status.UNAVAILABLE, f"{self._identifier} {why}: connect to another replica")
        served = Served(Stream(self._snapshot, self._words), call, self.counts)
        self._open.add(served)
        self.counts.connected += 1
        try:
            call.deliver(served.hear)
            await call.over.wait()
        finally:
            self.counts.connected -= 1
            self._open.remove(served)
            log.info("%s left", caller)
