"""A real client and real replicas over loopback TLS: outages, moves, tokens and roots that are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from ambient.model import mesh
from ambient.model.errors import SourceError
from ambient.xds import delta, dial, workloads
from ambient.xds.client import METHOD, NodeName
from ambient.xds.names import ADDRESS, AUTHORIZATION
from ambient.xds.proto import discovery_pb2 as pb
from tests.model.builders import IP, a_pod, a_policy, a_service, a_world

from . import replica as replicas
from . import wire
from .replica import PATIENT, TOKEN, Agent, Replica, eventually

WEB = a_pod("shop/web", "10.1.0.1", labels={"app": "web"})
WORLD = a_world(mesh.Node(name="n1"), WEB, a_service("shop/web", "10.96.0.1"), a_policy("shop/p"))
LATER = WORLD.replace([a_pod("shop/api", "10.1.0.2")], revision="later")


@pytest.fixture(autouse=True)
def _spread_thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state comes in several pieces."""
    monkeypatch.setattr(delta, "PIECE_RESOURCES", 2)


def test_the_first_item_is_the_whole_world_and_each_change_the_next(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, Agent(tmp_path, replica.port) as agent:
            await agent.until_world(WORLD)
            replica.discovery.publish(LATER)
            await agent.until_world(LATER)
            assert agent.items == [WORLD, LATER]
            assert agent.client.disconnected_s == 0
            assert agent.client.picture.replica == "ambient/r1"

    asyncio.run(run())


def test_a_killed_replica_is_replaced_by_another_and_nothing_is_noticed(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            Replica(WORLD) as one,
            Replica(WORLD, "r2") as two,
            Agent(tmp_path, one.port, two.port, patience=PATIENT) as agent,
        ):
            await agent.until_world(WORLD)
            serving, other = (one, two) if one.discovery.counts.connected else (two, one)
            await serving.kill()
            await eventually(lambda: other.discovery.counts.connected == 1 and agent.client.disconnected_s == 0)
            other.discovery.publish(LATER)
            await agent.until_world(LATER)
            assert agent.items == [WORLD, LATER]
            assert other.discovery.counts.pushed_bytes < 1000  # nothing that the agent has

    asyncio.run(run())


def test_a_replica_that_leaves_hands_its_agents_over(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(WORLD) as one, Agent(tmp_path, one.port, patience=PATIENT) as agent:
            await agent.until_world(WORLD)
            async with Replica(LATER, "r2") as two:
                agent.go_to(f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}")
                await one.discovery.drain(0.01)
                await agent.until_world(LATER)
            assert agent.items == [WORLD, LATER]

    asyncio.run(run())


def test_a_replica_killed_in_the_middle_of_a_push_is_no_loss(tmp_path: Path) -> None:
    """The state comes in pieces; the second replica sends the rest, and no World but the whole one is seen."""
    pods = [a_pod(f"shop/p{n}", f"10.2.{n // 250}.{n % 250}") for n in range(2_000)]  # a push that takes its time
    large = WORLD.replace(pods, revision="large")

    async def run() -> None:
        async with Replica(WORLD) as one, Agent(tmp_path, one.port, patience=PATIENT) as agent:
            await agent.until_world(WORLD)
            one.discovery.publish(large)
            await eventually(lambda: len(agent.client.picture._staged) >= 6)
            assert agent.items == [WORLD]
            await one.kill()
            one.discovery = Replica(large).discovery
            await one.start()
            await agent.until_world(large)
            assert agent.items == [WORLD, large]
            assert one.discovery.counts.pushes < len(pods) / delta.PIECE_RESOURCES

    asyncio.run(run())


def test_a_long_outage_is_told_once_and_so_is_its_end(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, Agent(tmp_path, replica.port) as agent:
            await agent.until_world(WORLD)
            await replica.kill()
            await agent.until(lambda: len(agent.items) == 2)
            assert agent.errors[0].startswith(f"no control plane: cannot connect to 127.0.0.1 port {replica.port}: ")
            assert agent.client.disconnected_s >= 0.2
            await asyncio.sleep(0.1)
            assert len(agent.items) == 2
            await replica.start()
            await agent.until(lambda: len(agent.items) == 3)
            assert agent.items[2] is agent.items[0]
            assert agent.client.disconnected_s == 0

    asyncio.run(run())


def test_a_short_outage_is_not_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, Agent(tmp_path, replica.port, patience=PATIENT) as agent:
            await agent.until_world(WORLD)
            await replica.kill()
            await eventually(lambda: agent.client.disconnected_s > 0.1)
            await replica.start()
            await eventually(lambda: agent.client.disconnected_s == 0)
            assert agent.items == [WORLD]

    asyncio.run(run())


def test_without_a_control_plane_there_is_no_world_and_the_reason_comes_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with Agent(tmp_path, 1) as agent:
            await agent.until(lambda: bool(agent.items))
            assert isinstance(agent.items[0], SourceError)
            assert "cannot connect to 127.0.0.1 port 1" in agent.errors[0]
            assert agent.client.disconnected_s > 0
            assert agent.client.picture.world is None

    asyncio.run(run())


def test_a_replica_that_has_no_world_yet_is_passed_over(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(None) as empty, Replica(WORLD) as ready, Agent(tmp_path, empty.port, ready.port) as agent:
            await agent.until_world(WORLD)

    asyncio.run(run())


def test_the_token_is_read_anew_for_every_connection(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, Agent(tmp_path, replica.port, token="expired") as agent:
            await agent.until(lambda: bool(agent.items))
            assert agent.errors == ["no control plane: no token that is known here"]
            agent.token.write_text(TOKEN)
            await agent.until_world(WORLD)

    asyncio.run(run())


def test_the_roots_are_read_anew_for_every_connection(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, Agent(tmp_path, replica.port) as agent:
            right = agent.roots.read_bytes()
            trustme.CA().cert_pem.write_to_path(str(agent.roots))
            await agent.until(lambda: bool(agent.items))
            assert "certificate verify failed" in agent.errors[0]
            agent.roots.write_bytes(right)
            await agent.until_world(WORLD)

    asyncio.run(run())


def test_an_agent_that_was_told_of_a_rotation_gets_in_while_its_file_lags(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica:
            agent = Agent(tmp_path, replica.port)
            agent.trust.tell(agent.roots.read_bytes())
            trustme.CA().cert_pem.write_to_path(str(agent.roots))
            async with agent:
                await agent.until_world(WORLD)

    asyncio.run(run())


def test_a_root_that_was_dropped_is_refused_once_the_file_has_followed(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica(WORLD) as replica, Agent(tmp_path, replica.port) as agent:
            old, new = agent.roots.read_bytes(), trustme.CA().cert_pem.bytes()
            agent.trust.tell(old + new)
            await agent.until_world(WORLD)
            agent.trust.tell(new)
            agent.roots.write_bytes(new)
            await replica.kill()
            await replica.start()
            await agent.until(lambda: bool(agent.errors))
            assert "certificate verify failed" in agent.errors[-1]
            assert agent.items[0] == WORLD
            assert len(agent.worlds) == 1

    asyncio.run(run())


MISSING: dict[str, tuple[Any, str]] = {
    "no roots": (lambda agent: agent.roots.unlink(), r"no roots by which to know .*roots\.pem.*ambient-root"),
    "roots that are none": (
        lambda agent: agent.roots.write_text("?"),
        r"no roots by which to know the control plane: .*roots\.pem",
    ),
    "no token": (lambda agent: agent.token.unlink(), r"cannot read our token .*/token: .*projected volume"),
    "no target": (lambda agent: agent.go_to(), "there is no address to try"),
    "a name of nobody": (lambda agent: agent.go_to("nowhere.invalid:1"), r"cannot resolve nowhere\.invalid:1"),
}


@pytest.mark.parametrize(("spoil", "why"), MISSING.values(), ids=MISSING.keys())
def test_what_is_missing_on_the_node_is_named(tmp_path: Path, spoil: Any, why: str) -> None:
    async def run() -> None:
        agent = Agent(tmp_path)
        spoil(agent)
        async with agent:
            await agent.until(lambda: bool(agent.items))
        assert re.search(why, agent.errors[0])

    asyncio.run(run())


def test_an_ipv6_target_is_written_in_brackets() -> None:
    assert asyncio.run(dial._addresses(("[::1]:15012", "127.0.0.1:15012", "127.0.0.1:15012"))) == [
        ("::1", 15012),
        ("127.0.0.1", 15012),
    ]


def test_trusted_roots_are_watched_beside_the_worlds(tmp_path: Path) -> None:
    async def run() -> None:
        async with Replica() as replica, Agent(tmp_path, replica.port) as agent:
            replica.discovery.publish(WORLD, b"ONE")
            async with contextlib.aclosing(agent.client.watch_roots()) as roots:
                assert await anext(roots) == b"ONE"
                replica.discovery.publish(WORLD, b"ONE TWO")
                assert await anext(roots) == b"ONE TWO"
            assert agent.items[1:] == []

    asyncio.run(run())


def test_a_resource_that_is_not_understood_is_refused_the_rest_applied_and_the_problem_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = workloads.encode

    def newer(workload: mesh.Workload, *rest: Any) -> Any:
        found = encode(workload, *rest)
        found.workload.tunnel_protocol = 9 if workload.name == "api" else found.workload.tunnel_protocol
        return found

    monkeypatch.setattr(workloads, "encode", newer)

    async def run() -> None:
        async with Replica(WORLD) as replica, Agent(tmp_path, replica.port) as agent:
            await agent.until_world(WORLD)
            both = LATER.replace([a_pod("shop/web", "10.1.0.9")], revision="both")
            replica.discovery.publish(both)
            await agent.until(lambda: len(agent.items) == 2)
            assert agent.worlds[-1].workloads.keys() == {"shop/web"}
            assert agent.worlds[-1].workload_at(IP("10.1.0.9")) is not None
            await eventually(lambda: replica.discovery.counts.nacks == 1)
            (problem,) = agent.client.picture.problems
            assert problem.startswith("Address Kubernetes//Pod/shop/api: tunnel protocol 9")

    asyncio.run(run())


def test_an_address_that_is_two_pods_for_a_moment_stops_nothing(tmp_path: Path) -> None:
    twins = WORLD.replace([a_pod("shop/web-2", "10.1.0.1")], revision="twins")

    async def run() -> None:
        async with Replica(twins) as replica, Agent(tmp_path, replica.port) as agent:
            await agent.until_world(twins)
            assert len(agent.client.picture.problems) == 2
            assert agent.worlds[-1].workload_at(IP("10.1.0.1")) is None
            replica.discovery.publish(WORLD)
            await agent.until_world(WORLD)
            assert agent.client.picture.problems == ()

    asyncio.run(run())


# --- other control planes


async def istiod(_: Any, context: Any) -> None:
    """Knows two types and answers to no other; one response for each; then waits."""
    asked.clear()
    while len(asked) < 5:
        data = await context.read()
        asked.append(wire.decode(data))
        request = pb.DeltaDiscoveryRequest.FromString(data)
        if request.response_nonce or request.type_url not in (AUTHORIZATION, ADDRESS):
            continue
        pod = {1: "web-1", 2: "shop", 3: IP("10.1.0.1").packed, 5: 1, 20: "Kubernetes//Pod/shop/web-1"}
        found = (
            [{3: pod[20], 1: "v1", 2: {1: ADDRESS, 2: wire.encode({1: pod})}}] if request.type_url == ADDRESS else []
        )
        await context.write(wire.encode({1: "2026/1", 2: found, 4: request.type_url, 5: "n", 7: {1: "istiod"}}))
    await asyncio.Event().wait()


asked: list[wire.Raw] = []


def test_istiod_serves_a_world_too(tmp_path: Path) -> None:
    service, method = METHOD[1:].split("/")
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.stream_stream_rpc_method_handler(istiod)})

    async def run() -> None:
        async with replicas.grpcio(handler) as (_, port), Agent(tmp_path, port) as agent:
            await agent.until(lambda: bool(agent.items))
            (world,) = agent.worlds
            assert world.workloads.keys() == {"shop/web-1"}
            assert agent.client.picture.problems == ()
            await eventually(lambda: len(asked) == 5)

    asyncio.run(run())
    (node,) = wire.messages(asked[0], 1)
    assert wire.text(node, 1) == "ztunnel~0.0.0.0~ambient-agent.ambient-system~ambient-system.svc.cluster.local"
    assert wire.texts(node, 10) == ["ambient.dev/more"]
    acknowledged = {wire.text(each, 2): wire.text(each, 6) for each in asked if 6 in each}
    assert acknowledged == {AUTHORIZATION: "n", ADDRESS: "n"}


def test_what_is_no_discovery_response_ends_the_connection(tmp_path: Path) -> None:
    async def garbage(_: Any, context: Any) -> None:
        await context.write(b"\xff\xff")
        await asyncio.Event().wait()

    service, method = METHOD[1:].split("/")
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.stream_stream_rpc_method_handler(garbage)})

    async def run() -> None:
        async with replicas.grpcio(handler) as (_, port), Agent(tmp_path, port) as agent:
            await agent.until(lambda: bool(agent.items))
            assert "what came is no DeltaDiscoveryResponse" in agent.errors[0]

    asyncio.run(run())


def test_a_node_says_where_it_is() -> None:
    found = NodeName(node="n7", pod="agent-x", namespace="mesh", ip="10.0.0.1").message()
    assert found.id == "ztunnel~10.0.0.1~agent-x.mesh~mesh.svc.cluster.local"
    assert found.metadata["NODE_NAME"] == "n7"
