"""A real server and real streams over loopback TLS: who may, what is sent, what is counted, how a replica leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from ambient.model.world import World
from ambient.xds import channel, names, snapshot
from ambient.xds.call import Call, RpcFailed, Status
from ambient.xds.caller import Caller, CannotAuthenticate, Metadata
from ambient.xds.channel import Keepalive
from ambient.xds.client import METHOD
from ambient.xds.delta import TYPES_MAX
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.resources import make
from ambient.xds.server import DiscoveryServer
from tests.model.builders import a_pod, a_world

from .replica import NAME, TOKEN, Replica, client_tls, eventually, listening

METADATA = {"authorization": f"Bearer {TOKEN}"}
WORLD = a_world(a_pod("shop/web", "10.1.0.1"))


@contextlib.asynccontextmanager
async def streaming(port: int, metadata: Any = METADATA, **more: Any) -> AsyncIterator[Call]:
    keepalive = more.pop("keepalive", Keepalive(idle_s=5, answer_s=5))
    async with channel.connect("127.0.0.1", port, client_tls(), NAME, timeout_s=1, keepalive=keepalive) as found:
        yield found.call(METHOD, metadata)


async def ask(call: Call, type_url: str = names.ADDRESS, **more: Any) -> None:
    await call.send(pb.DeltaDiscoveryRequest(type_url=type_url, **more).SerializeToString())


async def end(call: Call) -> RpcFailed | None:
    """How it ends, after whatever is said before."""
    try:
        while await call.receive() is not None:
            pass
    except RpcFailed as error:
        return error
    return None


async def hear(call: Call) -> pb.DeltaDiscoveryResponse:
    return pb.DeltaDiscoveryResponse.FromString(await call.receive() or b"")


def test_a_stream_is_told_the_world_and_its_changes() -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, streaming(replica.port) as call:
            await ask(call)
            first = await hear(call)
            assert [each.name for each in first.resources] == ["Kubernetes//Pod/shop/web"]
            assert first.control_plane.identifier == "ambient/r1"
            await ask(call, response_nonce=first.nonce)
            replica.discovery.publish(WORLD.replace([a_pod("shop/api")], revision="2"))
            second = await hear(call)
            assert [each.name for each in second.resources] == ["Kubernetes//Pod/shop/api"]
            assert second.system_version_info == "2"

    asyncio.run(run())


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Bearer stolen"}], ids=["no token", "a wrong one"])
def test_who_has_not_proven_who_they_are_is_refused_and_counted(metadata: dict[str, str]) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, streaming(replica.port, metadata) as call:
            with pytest.raises(RpcFailed, match="no token that is known here") as failed:
                await call.receive()
            assert failed.value.status == Status.UNAUTHENTICATED
            assert (replica.discovery.counts.refused, replica.discovery.counts.connected) == (1, 0)

    asyncio.run(run())


def test_a_client_of_whom_nobody_can_tell_who_it_is_may_come_again_and_is_no_stranger() -> None:
    async def nobody_to_ask(_: Metadata) -> Caller:
        raise CannotAuthenticate("the API server is away")

    async def run() -> None:
        discovery = DiscoveryServer(nobody_to_ask, "r1")
        discovery.publish(WORLD)
        async with listening(discovery.handlers()) as (_, port), streaming(port) as call:
            with pytest.raises(RpcFailed, match="the API server is away") as failed:
                await call.receive()
            assert failed.value.status == Status.UNAVAILABLE
            assert discovery.counts.refused == 0

    asyncio.run(run())


def test_a_replica_without_a_world_sends_its_clients_to_another() -> None:
    async def run() -> None:
        async with Replica() as replica, streaming(replica.port) as call:
            with pytest.raises(RpcFailed, match="r1 has no World yet") as failed:
                await call.receive()
            assert failed.value.status == Status.UNAVAILABLE

    asyncio.run(run())


@pytest.mark.parametrize(
    ("requests", "why"),
    [
        ([b"\xff\xff"], "Error parsing message"),
        (
            [pb.DeltaDiscoveryRequest(type_url=f"t/{n}").SerializeToString() for n in range(TYPES_MAX + 1)],
            "t/16 is one type more",
        ),
    ],
    ids=["no request", "too many types"],
)
def test_a_client_that_breaks_the_protocol_is_told_so(requests: list[bytes], why: str) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, streaming(replica.port) as call:
            for request in requests:
                await call.send(request)
            failed = await end(call)
            assert failed is not None
            assert why in str(failed)
            assert failed.status == 3

    asyncio.run(run())


def test_connections_pushes_and_refusals_are_counted() -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica:
            counts = replica.discovery.counts
            async with streaming(replica.port) as call, streaming(replica.port) as other:
                for each in (call, other):
                    await ask(each)
                    first = await hear(each)
                assert (counts.connected, counts.pushes, counts.nacks) == (2, 2, 0)
                assert counts.pushed_bytes >= 2 * len(first.resources[0].SerializeToString())
                await ask(other, response_nonce=first.nonce, error_detail=pb.Status(message="no good"))
                await eventually(lambda: counts.nacks == 1)
            await eventually(lambda: counts.connected == 0)

    asyncio.run(run())


def test_a_client_that_says_it_is_done_gets_a_good_end() -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, streaming(replica.port) as call:
            await call.send(pb.DeltaDiscoveryRequest(type_url=names.NOUN).SerializeToString(), last=True)
            assert await end(call) is None
            await eventually(lambda: replica.discovery.counts.connected == 0)

    asyncio.run(run())


def test_a_hundred_streams_share_the_bytes_of_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    def counted(type_url: str, name: str, *rest: Any) -> Any:
        encoded.append(name)
        return make(type_url, name, *rest)

    monkeypatch.setattr(snapshot, "make", counted)

    async def run() -> None:
        async with Replica(WORLD) as replica, contextlib.AsyncExitStack() as stack:
            found = await stack.enter_async_context(
                channel.connect(
                    "127.0.0.1", replica.port, client_tls(), NAME, timeout_s=1, keepalive=Keepalive(idle_s=5)
                )
            )
            calls = [found.call(METHOD, METADATA) for _ in range(100)]
            for call in calls:
                await ask(call)
            for call in calls:
                await ask(call, response_nonce=(await hear(call)).nonce)
            encoded.clear()
            pod = WORLD.workloads["shop/web"]
            replica.discovery.publish(WORLD.replace([replace(pod, ready=False)], revision="2"))
            told = [await hear(call) for call in calls]
            assert len({each.resources[0].version for each in told}) == 1
            assert encoded == ["Kubernetes//Pod/shop/web"]

    asyncio.run(run())


def test_a_slow_client_costs_names_and_gets_the_newest_state() -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, streaming(replica.port) as call:
            await ask(call)
            first = await hear(call)
            world: World = WORLD
            for number in range(50):
                pod = a_pod("shop/web", f"10.2.0.{number}")
                world = world.replace([pod, a_pod(f"shop/brief-{number}")], revision=f"r{number}")
                replica.discovery.publish(world)
                world = world.replace([], [(type(pod), f"shop/brief-{number}")], revision=f"r{number}-")
                replica.discovery.publish(world)
            assert replica.discovery.counts.pushes == 1
            await ask(call, response_nonce=first.nonce)
            second = await hear(call)
            assert [(each.name, *each.aliases) for each in second.resources] == [
                ("Kubernetes//Pod/shop/web", "/10.2.0.49")
            ]
            assert len(second.removed_resources) == 50

    asyncio.run(run())


def test_a_replica_that_leaves_sends_everyone_away_and_takes_no_new_client() -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, streaming(replica.port) as call, streaming(replica.port) as other:
            for each in (call, other):
                await ask(each)
                await hear(each)
            await replica.discovery.drain(0.01)
            for each in (call, other):
                with pytest.raises(RpcFailed, match="r1 is leaving: connect to another") as failed:
                    await each.receive()
                assert failed.value.status == Status.UNAVAILABLE
            async with streaming(replica.port) as late:
                with pytest.raises(RpcFailed, match="is leaving"):
                    await late.receive()

    asyncio.run(run())


def test_a_replica_without_clients_leaves_at_once() -> None:
    asyncio.run(DiscoveryServer(lambda _: asyncio.sleep(0), "r").drain(60))


def test_clients_may_ask_whether_the_server_is_alive_as_often_as_ours_do() -> None:
    async def run() -> None:
        keepalive = Keepalive(idle_s=0.06, answer_s=2)
        async with Replica(WORLD) as replica, streaming(replica.port, keepalive=keepalive) as call:
            await ask(call)
            await hear(call)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.6):
                    await call.receive()

    asyncio.run(run())


def test_a_port_that_is_taken_is_an_error() -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica:
            second = Replica(WORLD)
            second.port = replica.port
            with pytest.raises(OSError, match="in use"):
                await second.start()

    asyncio.run(run())
