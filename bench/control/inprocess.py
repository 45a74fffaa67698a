"""python -m bench.control.inprocess PODS STREAMS CHANGES: what the parts cost without a network, as one JSON object.

A process of its own for each size, because memory is part of the answer.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
from collections.abc import Iterable

import click

from ambient.model.mesh import MeshConfig
from ambient.xds import names
from ambient.xds.delta import Stream
from ambient.xds.picture import Picture
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.snapshot import Changed, Snapshot
from ambient.xds.wording import Wording
from bench import command
from bench.control import worlds
from bench.mesh import cpu

NODE = pb.Node(id="bench", client_features=[names.MORE])


def figures(pods: int, streams: int, changes: int) -> dict[str, float]:
    world = worlds.world(pods)
    bare = _resident_mb()
    begun = time.process_time()  # nothing here waits
    snapshot = Snapshot.of(world)
    found = {
        "snapshot_s": time.process_time() - begun,
        "world_mb": bare,
        "snapshot_mb": _resident_mb() - bare,
        "resources": float(sum(len(snapshot.table(url)) for url in names.TYPES)),
        "bytes_mb": sum(len(each.element) for url in names.TYPES for each in snapshot.table(url).values()) / 1e6,
    }
    words = Wording()
    listeners = [_synced(Stream(snapshot, words), snapshot) for _ in range(streams)]
    for kind in ("pod", "policy"):
        advance, tell = [], []
        for number in range(changes):
            world = worlds.change(world, kind, number)
            begun = time.process_time()
            snapshot, changed = snapshot.advance(world)
            advanced = time.process_time()
            _tell(listeners, snapshot, changed)
            advance.append(advanced - begun)
            tell.append(time.process_time() - advanced)
        found[f"{kind}_advance_ms"] = statistics.median(advance) * 1e3
        found[f"{kind}_tell_ms"] = statistics.median(tell) * 1e3
    del listeners
    gc.collect()
    before = _resident_mb()
    begun = time.process_time()
    picture = _agent(snapshot)
    found["agent_ready_s"] = time.process_time() - begun
    found["agent_world_mb"] = _resident_mb() - before
    assert picture.world is not None
    assert len(picture.world.workloads) == pods
    return found


def _synced(stream: Stream, snapshot: Snapshot) -> Stream:
    """As if its agent had everything."""
    for url in names.TYPES:
        versions = {name: each.version for name, each in snapshot.table(url).items()}
        stream.receive(pb.DeltaDiscoveryRequest(type_url=url, node=NODE, initial_resource_versions=versions))
        _acknowledge(stream)
    return stream


def _tell(streams: Iterable[Stream], snapshot: Snapshot, changed: Changed) -> None:
    for stream in streams:
        stream.publish(snapshot, changed)
        _acknowledge(stream)


def _acknowledge(stream: Stream) -> None:
    for response in stream.responses():
        stream.receive(pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))


def _agent(snapshot: Snapshot) -> Picture:
    """Everything, as an agent takes it."""
    stream, picture = Stream(snapshot, Wording(names.IDENTIFIER + "bench")), Picture(MeshConfig())
    for request in picture.connect(NODE):
        stream.receive(request)
    while responses := stream.responses():
        for response in responses:
            stream.receive(picture.receive(pb.DeltaDiscoveryResponse.FromString(response.body))[0])
    return picture


def _resident_mb() -> float:
    return cpu.resident([os.getpid()])


@click.command(cls=command.Command)
@click.argument("pods", type=click.IntRange(1))
@click.argument("streams", type=click.IntRange(1))
@click.argument("changes", type=click.IntRange(1))
def main(pods: int, streams: int, changes: int) -> None:
    """What the parts cost of a World of PODS, STREAMS agents and CHANGES of each kind."""
    click.echo(json.dumps(figures(pods, streams, changes)))


if __name__ == "__main__":
    main()
