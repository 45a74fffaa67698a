"""What is told of a change costs what changed, not what there is: counted, for a small mesh and a large one."""

from __future__ import annotations

import functools
import gc
import tracemalloc
from dataclasses import replace

from ambient.model.world import World
from ambient.xds import names
from ambient.xds.delta import Stream
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.snapshot import Snapshot
from ambient.xds.wording import Wording
from tests import costs
from tests.model.builders import a_pod, a_policy, a_service, a_world

SMALL, LARGE = 200, 3_200  # pods
CHANGES = 40


def a_mesh(pods: int) -> World:
    """Ten pods a namespace, as many Services."""
    addresses = [f"{number // 256}.{number % 256}" for number in range(pods)]
    workloads = [
        a_pod(f"ns{number // 10}/p{number}", f"10.1.{addresses[number]}", labels={"app": f"p{number}"})
        for number in range(pods)
    ]
    services = [a_service(f"ns{number // 10}/p{number}", f"10.2.{addresses[number]}") for number in range(pods)]
    policies = [a_policy(f"ns{number}/p", selector={"app": f"p{number}"}) for number in range(pods // 10)]
    return a_world(*workloads, *services, *policies)


def told_everything(snapshot: Snapshot) -> Stream:
    stream = Stream(snapshot, Wording())
    for url in names.TYPES:
        node = pb.Node(client_features=[names.MORE])
        stream.receive(pb.DeltaDiscoveryRequest(type_url=url, node=node))
    acknowledge(stream)
    return stream


def acknowledge(stream: Stream) -> None:
    while responses := stream.responses():
        for each in responses:
            stream.receive(pb.DeltaDiscoveryRequest(type_url=each.type_url, response_nonce=each.nonce))


def test_telling_a_change_costs_what_changed() -> None:
    def cost(pods: int) -> costs.Cost:
        world = a_mesh(pods)
        snapshot = Snapshot.of(world)
        stream = told_everything(snapshot)

        def change(number: int) -> None:
            nonlocal world, snapshot
            pod = world.workloads[f"ns{number // 10}/p{number}"]
            world = world.replace([replace(pod, ready=False)], revision=str(number))
            snapshot, changed = snapshot.advance(world)
            stream.publish(snapshot, changed)
            acknowledge(stream)

        return costs.of_all(functools.partial(change, number) for number in range(CHANGES))

    small, large = cost(SMALL), cost(LARGE)
    assert large.steps < small.steps * 1.5
    assert large.peak_bytes < small.peak_bytes * 3  # a copy of a table would be 16 times as large


def test_a_stream_that_has_told_everything_holds_nothing_of_it() -> None:
    def held(pods: int) -> int:
        snapshot = Snapshot.of(a_mesh(pods))
        told_everything(snapshot)  # what is made once for all is made
        gc.collect()
        tracemalloc.start()
        stream = told_everything(snapshot)
        gc.collect()
        found = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert not stream.ready
        return found

    assert held(LARGE) < held(SMALL) * 1.5
