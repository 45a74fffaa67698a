"""Serves Worlds to agents: delta ADS on grpc.aio. The I/O around xds.delta; where a World comes from is not known here.

Each stream is one coroutine that says and one that hears. publish() is the only way in: it encodes what changed, once,
and wakes the streams. Nobody is served from no World, or by a replica that is leaving: such a client goes to another.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message

from ambient.model.world import World
from ambient.xds import caller as callers
from ambient.xds.delta import BadRequest, Stream
from ambient.xds.names import IDENTIFIER
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.snapshot import Snapshot

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
REQUEST_BYTES = 64 << 20  # an agent that reconnects names the version of every resource it holds
OPTIONS = (
    ("grpc.max_receive_message_length", REQUEST_BYTES),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error
    ("grpc.keepalive_time_ms", 30_000),  # an agent whose node is gone holds its stream no longer than both
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # agents ask more often: channel.Keepalive
    ("grpc.keepalive_permit_without_calls", 1),
)
log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(slots=True)
class Counts:
    """For metrics."""

    connected: int = 0  # streams, now
    refused: int = 0  # streams, because the caller is nobody
    pushes: int = 0  # responses
    pushed_bytes: int = 0
    nacks: int = 0  # responses of which a client refused a part


@dataclass(slots=True, eq=False)
class Served:
    """One open stream."""

    stream: Stream
    news: asyncio.Event = field(default_factory=asyncio.Event)
    leave: bool = False


def grpc_server(handlers: Iterable[grpc.GenericRpcHandler]) -> grpc.aio.Server:
    """Not started, without a port."""
    return grpc.aio.server(handlers=[*handlers], options=OPTIONS)


class DiscoveryServer:
    def __init__(self, authenticate: callers.Authenticate, replica: str) -> None:
        """replica: what clients' logs call this one."""
        self.counts = Counts()
        self._authenticate = authenticate
        self._identifier = IDENTIFIER + replica
        self._snapshot: Snapshot | None = None
        self._open: set[Served] = set()
        self._leaving = False

    @property
    def handler(self) -> grpc.GenericRpcHandler:
        """For grpc_server()."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {"DeltaAggregatedResources": method})

    def publish(self, world: World, roots: bytes | None = None) -> None:
        """The next World, and the certificates (PEM) that are trusted now; None: the same as before."""
        if self._snapshot is None:
            self._snapshot = Snapshot.of(world, roots or b"")
            return
        self._snapshot, changed = self._snapshot.advance(world, roots)
        for served in self._open:
            served.stream.publish(self._snapshot, changed)
            if served.stream.ready:
                served.news.set()

    async def drain(self, spread_s: float) -> None:
        """Send every client to another replica, one after the other within the time given; take no new one."""
        self._leaving = True
        streams = [*self._open]
        random.shuffle(streams)
        for served in streams:
            served.leave = True
            served.news.set()
            await asyncio.sleep(spread_s / len(streams))

    async def _counted(self, metadata: callers.Metadata) -> callers.Caller:
        try:
            return await self._authenticate(metadata)
        except callers.Unauthenticated:
            self.counts.refused += 1
            raise

    async def _serve(self, _: object, context: Context) -> None:
        """One stream, to its end."""
        caller = await callers.admit(context, self._counted)
        if self._leaving or self._snapshot is None:
            why = "is leaving" if self._leaving else "has no World yet"
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"{self._identifier} {why}: connect to another replica")
            return
        served = Served(Stream(self._snapshot, self._identifier))
        hearing = asyncio.create_task(self._hear(served, context), name=f"xds: requests of {context.peer()}")
        hearing.add_done_callback(lambda _: served.news.set())
        self._open.add(served)
        self.counts.connected += 1
        try:
            await self._say(served, hearing, context)
        finally:
            self.counts.connected -= 1
            self._open.remove(served)
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
            log.info("%s left", caller)

    async def _say(self, served: Served, hearing: asyncio.Task[str], context: Context) -> None:
        """Send what is due whenever something may be, until the client has ended the stream or has to go."""
        while not hearing.done():
            if served.leave:
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"{self._identifier} is leaving: connect to another")
            for response in served.stream.responses():
                self.counts.pushes += 1
                self.counts.pushed_bytes += len(response.body)
                await context.write(response.body)
            await served.news.wait()
            served.news.clear()
        if problem := hearing.result():
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)

    async def _hear(self, served: Served, context: Context) -> str:
        """Take requests until the client says no more. Returns what was wrong with the last one, if it was."""
        while True:
            data: Any = await context.read()
            if data is grpc.aio.EOF:
                return ""
            try:
                request = pb.DeltaDiscoveryRequest.FromString(data)
                if refused := served.stream.receive(request):
                    self.counts.nacks += 1
                    log.error("%s refused a part of %s: %s", served.stream.node, request.type_url, refused)
            except (BadRequest, message.DecodeError) as error:
                return str(error)
            if served.stream.ready:
                served.news.set()
