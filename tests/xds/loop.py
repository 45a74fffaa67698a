"""A server's stream and a client's picture joined without a network, and what went over the wire between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ambient.model import mesh
from ambient.model.world import World
from ambient.xds import names
from ambient.xds.delta import Stream
from ambient.xds.picture import Picture
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.snapshot import Changed, Snapshot
from ambient.xds.wording import Wording

NODE = pb.Node(id="test", client_features=[names.MORE])


@dataclass
class Loop:
    """One agent and one replica of the control plane."""

    snapshot: Snapshot
    picture: Picture = field(default_factory=lambda: Picture(mesh.MeshConfig()))
    worlds: list[World] = field(default_factory=list)  # as the client got them
    said: list[pb.DeltaDiscoveryResponse] = field(default_factory=list)
    nacks: list[str] = field(default_factory=list)

    def connect(self, node: pb.Node = NODE) -> Loop:
        self.stream = Stream(self.snapshot, Wording(names.IDENTIFIER + "test"))
        for request in self.picture.connect(node):
            self.stream.receive(_over_the_wire(request))
        return self

    def publish(self, world: World) -> Changed:
        self.snapshot, changed = self.snapshot.advance(world)
        self.stream.publish(self.snapshot, changed)
        return changed

    def settle(self, responses: int | None = None) -> Loop:
        """Deliver until nothing is left to say, or so many responses."""
        while waiting := self.stream.responses():
            for response in waiting:
                if responses is not None and len(self.said) >= responses:
                    return self
                found = pb.DeltaDiscoveryResponse.FromString(response.body)
                self.said.append(found)
                answer, world = self.picture.receive(found)
                self.nacks += filter(None, [self.stream.receive(_over_the_wire(answer))])
                self.worlds += [world] if world else []
        return self


def _over_the_wire(request: pb.DeltaDiscoveryRequest) -> pb.DeltaDiscoveryRequest:
    return pb.DeltaDiscoveryRequest.FromString(request.SerializeToString())


def looped(world: World) -> Loop:
    return Loop(Snapshot.of(world)).connect().settle()
