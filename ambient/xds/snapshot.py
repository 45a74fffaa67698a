"""A World as resources: immutable, and the next one made from what changed. Pure; knows no stream and no subscriber."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ambient.model import mesh
from ambient.model.revised import revised
from ambient.model.world import Kind, World
from ambient.xds import affected, names, nouns, policies, services, workloads
from ambient.xds.resources import Resource, make
from ambient.xds.selection import Selection, derived_name

Slot = tuple[str, str]  # type URL, name
Table = Mapping[str, Resource]  # by name
Changed = Mapping[str, frozenset[str]]  # names by type URL; gone ones too
NOTHING: Table = {}


@dataclass(frozen=True, slots=True)
class Snapshot:
    world: World
    roots: bytes  # PEM; empty: not ours to tell
    tables: Mapping[str, Table] = field(repr=False)

    @classmethod
    def of(cls, world: World, roots: bytes = b"") -> Snapshot:
        """A World from nothing."""
        empty = cls(World(mesh=world.mesh), b"", {})
        encoder = Encoder(empty, world, roots)
        return empty._with(world, roots, encoder.encode(affected.everything(empty.world, world)))[0]

    def advance(self, world: World, roots: bytes | None = None) -> tuple[Snapshot, Changed]:
        """The next one, and which resources are not what they were. roots: None for the same.

        Costs the work for what changed.
        """
        roots = self.roots if roots is None else roots
        encoder = Encoder(self, world, roots)
        return self._with(world, roots, encoder.encode(affected.between(encoder.old, encoder.new)))

    @property
    def revision(self) -> str:
        return self.world.revision

    def table(self, type_url: str) -> Table:
        return self.tables.get(type_url, NOTHING)

    def keys(self, type_url: str, name: str) -> Iterator[str]:
        return names.keys(self.world, type_url, name)

    def lookup(self, type_url: str, key: str) -> Iterator[str]:
        return names.lookup(self.world, type_url, key)

    def _with(
        self, world: World, roots: bytes, encoded: Iterable[tuple[Slot, Resource | None]]
    ) -> tuple[Snapshot, Changed]:
        found: dict[str, dict[str, Resource | None]] = {}
        for (type_url, name), resource in encoded:
            was = self.table(type_url).get(name)
            if (was and was.version) != (resource and resource.version):
                found.setdefault(type_url, {})[name] = resource
        tables = {type_url: revised(self.table(type_url), changes) for type_url, changes in found.items()}
        changed = {type_url: frozenset(changes) for type_url, changes in found.items()}
        return Snapshot(world, roots, {**self.tables, **tables}), changed


class Encoder:
    """Keys of nouns to resources: bytes, or None where the new World has no such noun."""

    def __init__(self, snapshot: Snapshot, world: World, roots: bytes) -> None:
        self.old = Selection(snapshot.world)
        self.new = Selection(world)
        self.world = world
        self.roots = roots

    def encode(self, keys: affected.Affected) -> Iterator[tuple[Slot, Resource | None]]:
        if keys.mesh:
            yield from self._mesh()
        yield self._beyond(nouns.Roots(self.roots) if self.roots else None, names.ROOTS)
        for kind, changed, table in (
            (mesh.Node, keys.nodes, self.world.nodes),
            (mesh.Namespace, keys.namespaces, self.world.namespaces),
            (mesh.PeerAuthentication, keys.peer_authentications, self.world.peer_authentications),
            (mesh.TrafficPolicy, keys.traffic_policies, self.world.traffic_policies),
        ):
            yield from self._nouns(kind, changed, table)
        for key in keys.policies:
            yield from self._policy(key)
        for key in keys.peer_authentications:
            yield self._port_level(key)
        for key in keys.services:
            service = self.world.services.get(key)
            namespace, _, name = key.partition("/")
            yield self._service(service, names.of_service(mesh.Service(namespace=namespace, name=name)))
        for key in keys.workloads:
            yield self._workload(self.world.workloads.get(key), names.of_workload(key))

    def _mesh(self) -> Iterator[tuple[Slot, Resource | None]]:
        yield self._beyond(self.world.mesh, names.MESH)
        if self.old.static_strict != self.new.static_strict:
            yield (names.AUTHORIZATION, self.old.static_strict), None
        slot = names.AUTHORIZATION, self.new.static_strict
        yield slot, make(*slot, policies.static_strict(self.world.mesh.root_namespace))

    def _nouns(
        self, kind: Kind, keys: Iterable[str], table: Mapping[str, nouns.Beyond]
    ) -> Iterator[tuple[Slot, Resource | None]]:
        return (self._beyond(table.get(key), names.of_noun(kind, key)) for key in keys)

    def _beyond(self, noun: nouns.Beyond | None, name: str) -> tuple[Slot, Resource | None]:
        slot = names.NOUN, name
        return slot, make(*slot, nouns.encode(noun)) if noun else None

    def _policy(self, key: str) -> Iterator[tuple[Slot, Resource | None]]:
        """A waypoint's policy is not for L4, which has no other way to say so than not to be told."""
        policy = self.world.policies.get(key)
        waypoints, ours = (policy, None) if policy and policy.targets else (None, policy)
        yield self._beyond(waypoints, names.of_noun(mesh.AuthorizationPolicy, key))
        slot = names.AUTHORIZATION, key
        yield slot, make(*slot, policies.encode(ours, self.world.mesh.root_namespace)) if ours else None

    def _port_level(self, key: str) -> tuple[Slot, Resource | None]:
        policy = self.world.peer_authentications.get(key)
        slot = names.AUTHORIZATION, derived_name(key)
        if policy is None or not policy.selector or policy.namespace == self.world.mesh.root_namespace:
            return slot, None
        derived = policies.port_level(policy, self.new.inherited(policy.namespace))
        return slot, make(*slot, derived) if derived else None

    def _service(self, service: mesh.Service | None, name: str) -> tuple[Slot, Resource | None]:
        slot = names.ADDRESS, name
        if service is None:
            return slot, None
        aliases = [names.of_address(ip) for ip in service.vips]
        return slot, make(*slot, services.encode(service), aliases)

    def _workload(self, workload: mesh.Workload | None, name: str) -> tuple[Slot, Resource | None]:
        slot = names.ADDRESS, name
        if workload is None:
            return slot, None
        body = workloads.encode(
            workload,
            self.world.mesh.trust_domain,
            self.world.services_of(workload),
            self.new.listed(workload),
        )
        return slot, make(*slot, body, names.aliases(workload))
