"""The client's side of delta ADS as a state machine: responses in, acknowledgements and Worlds out. No I/O, no clock.

It outlives connections. What a connection brings is put aside until it makes a complete state, and only then comes the
next World; what a broken connection left is not asked for again. A resource that cannot be understood is refused by
name, the rest is taken; of what protects, the last good version stays, or else it denies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ambient.model import mesh
from ambient.model.world import Noun, World
from ambient.xds import foreign, names, nouns
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.resources import decode

NAMED_MAX = 20  # refused resources that are named in one message
WHY_MAX = 400  # characters for each
INVALID_ARGUMENT = 3  # google.rpc.Code
Slot = tuple[str, str]  # type URL, name
Staged = Noun | mesh.MeshConfig | nouns.Roots | None  # None: gone


class Picture:
    def __init__(self, config: mesh.MeshConfig) -> None:
        """config: until the control plane tells another."""
        self.world: World | None = None  # the last complete one
        self.roots = b""  # PEM; empty until told
        self.replica = ""  # what the control plane calls itself
        self.complete = False  # whether this connection has brought a whole state
        self._mesh = config
        self._versions: dict[str, dict[str, str]] = {url: {} for url in names.TYPES}
        self._staged: dict[Slot, Staged] = {}
        self._refused: dict[Slot, str] = {}
        self._answered: set[str] = set()  # types, by this connection

    @property
    def problems(self) -> tuple[str, ...]:
        """What was refused, and what contradicts itself in the World: addresses that are nobody's."""
        contradictions = self.world.problems() if self.world else []
        return (*sorted(self._refused.values()), *map(str, contradictions))

    def connect(self, node: pb.Node) -> list[pb.DeltaDiscoveryRequest]:
        """The requests a new connection begins with."""
        self.complete, self._answered = False, set()
        requests = [
            pb.DeltaDiscoveryRequest(type_url=url, initial_resource_versions=self._versions[url]) for url in names.TYPES
        ]
        requests[0].node.CopyFrom(node)
        return requests

    def receive(self, response: pb.DeltaDiscoveryResponse) -> tuple[pb.DeltaDiscoveryRequest, World | None]:
        """The answer to send, and the next World if the response completes one that is new."""
        url = response.type_url
        answer = pb.DeltaDiscoveryRequest(type_url=url, response_nonce=response.nonce)
        if url not in self._versions:
            answer.error_detail.code = INVALID_ARGUMENT
            answer.error_detail.message = f"{url} was not asked for"
            return answer, None
        self.replica = response.control_plane.identifier
        self._answered.add(url)
        for name in response.removed_resources:
            self._remove((url, name))
        refused = [why for resource in response.resources if (why := self._take(url, resource))]
        if refused:
            rest = f"; and {len(refused) - NAMED_MAX} more" if len(refused) > NAMED_MAX else ""
            answer.error_detail.code = INVALID_ARGUMENT
            answer.error_detail.message = "; ".join(why[:WHY_MAX] for why in refused[:NAMED_MAX]) + rest
        if response.more or not self._answered.issuperset(self._types()):
            return answer, None
        self.complete = True
        return answer, self._commit(response.system_version_info or response.nonce)

    def _types(self) -> tuple[str, ...]:
        return names.TYPES if self._ours else (names.AUTHORIZATION, names.ADDRESS)

    @property
    def _ours(self) -> bool:
        return self.replica.startswith(names.IDENTIFIER)

    def _remove(self, slot: Slot) -> None:
        url, name = slot
        self._refused.pop(slot, None)
        if self._versions[url].pop(name, None) is not None:
            self._staged[slot] = None

    def _take(self, url: str, resource: pb.Resource) -> str:
        """Why the resource was refused, if it was."""
        slot = (url, resource.name)
        try:
            decoded = decode(url, resource)
        except ValueError as error:
            why = f"{url.rpartition('.')[2]} {resource.name}: {error}"
            self._refused[slot] = why
            if resource.name not in self._versions[url] and (closed := _closed(url, resource.name)):
                self._staged[slot] = closed
                self._versions[url][resource.name] = ""  # not the refused one: it is to be sent again
            return why
        self._refused.pop(slot, None)
        self._versions[url][resource.name] = resource.version
        self._staged[slot] = decoded.noun
        if decoded.root_namespace and not self._ours:
            self._mesh = dataclasses.replace(self._mesh, root_namespace=decoded.root_namespace)
        return ""

    def _commit(self, revision: str) -> World | None:
        if not self._staged and self.world is not None:
            return None
        staged, self._staged = self._staged, {}
        upserts: list[Noun] = []
        for noun in staged.values():
            if isinstance(noun, mesh.MeshConfig):
                self._mesh = noun
            elif isinstance(noun, nouns.Roots):
                self.roots = noun.pem
            elif noun is not None:
                upserts.append(noun)
        gone = [ref for (url, name), noun in staged.items() if noun is None and (ref := names.ref(url, name))]
        before = self.world or World(mesh=self._mesh)
        if self.world is not None and not upserts and not gone and self._mesh == before.mesh:
            return None
        after = before.replace(upserts, gone, revision=revision, mesh=self._mesh)
        if not self._ours:
            after = foreign.with_nodes(before, after, _workloads(staged))
        self.world = after
        return after


def _closed(url: str, name: str) -> Noun | None:
    """What stands for a policy that was never understood: it denies whatever it may have spoken of."""
    try:
        ref = names.ref(url, name)
    except ValueError:
        return None
    namespace, _, called = ref[1].partition("/") if ref else ("", "", "")
    match ref:
        case (mesh.AuthorizationPolicy, _) if url == names.AUTHORIZATION:
            return mesh.AuthorizationPolicy(
                namespace=namespace, name=called, action=mesh.Action.DENY, rules=(mesh.Rule(),)
            )
        case (mesh.PeerAuthentication, _):
            return mesh.PeerAuthentication(namespace=namespace, name=called, mode=mesh.MtlsMode.STRICT)
        case (mesh.TrafficPolicy, _):
            return mesh.TrafficPolicy(
                namespace=namespace, name=called, outbound=mesh.OutboundMode.REGISTRY_ONLY, require_mtls=True
            )
    return None


def _workloads(staged: Mapping[Slot, Staged]) -> list[str]:
    refs = (names.ref(url, name) for url, name in staged)
    return [ref[1] for ref in refs if ref and ref[0] is mesh.Workload]
