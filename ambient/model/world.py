"""The World: one immutable, consistent picture of the mesh, and the difference between two of them.

A World only answers "what is"; model.route and model.policy decide. It is replaced whole, never changed; successive
Worlds share what did not change.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ambient.model import contradictions, draft
from ambient.model.changes import Changes
from ambient.model.mesh import (
    AuthorizationPolicy,
    IPAddress,
    IPNetwork,
    MeshConfig,
    Namespace,
    Node,
    PeerAuthentication,
    Service,
    TrafficPolicy,
    Workload,
)
from ambient.model.tables import NO_KEYS, Endpoint, Kind, Noun, Tables, endpoints_of

__all__ = ["Changes", "Endpoint", "Kind", "Noun", "World", "diff"]

K = TypeVar("K", bound=Hashable)
DEFAULTS = MeshConfig()


class Mark:
    """Tells one World from every other without keeping it alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    mesh: MeshConfig = DEFAULTS
    revision: str = ""  # of the source this was read from; says nothing about equality
    _tables: Tables = field(default_factory=Tables, repr=False)
    _mark: Mark = field(default_factory=Mark, repr=False, compare=False)
    _made_from: tuple[Mark, Changes] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        *,
        mesh: MeshConfig = DEFAULTS,
        nodes: Iterable[Node] = (),
        namespaces: Iterable[Namespace] = (),
        workloads: Iterable[Workload] = (),
        services: Iterable[Service] = (),
        policies: Iterable[AuthorizationPolicy] = (),
        peer_authentications: Iterable[PeerAuthentication] = (),
        traffic_policies: Iterable[TrafficPolicy] = (),
        revision: str = "",
    ) -> World:
        """A World from nothing."""
        everything: list[Noun] = [*nodes, *namespaces, *workloads, *services, *policies]
        everything += [*peer_authentications, *traffic_policies]
        return cls(mesh=mesh).replace(everything, revision=revision)

    def replace(
        self,
        upserts: Iterable[Noun] = (),
        removals: Iterable[tuple[Kind, str]] = (),
        *,
        revision: str,
        mesh: MeshConfig | None = None,
    ) -> World:
        """The next World. Removals, (type, key), come first; removing what is not there is no error.

        mesh: None for the same. Costs work in proportion to what changes: see model.revised.
        """
        tables, changes = draft.next_tables(self._tables, upserts, removals)
        if mesh is not None and mesh != self.mesh:
            changes = replace(changes, mesh=True)
        return World(mesh=mesh or self.mesh, revision=revision, _tables=tables, _made_from=(self._mark, changes))

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._tables.nodes

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        return self._tables.namespaces

    @property
    def workloads(self) -> Mapping[str, Workload]:
        return self._tables.workloads

    @property
    def services(self) -> Mapping[str, Service]:
        return self._tables.services

    @property
    def policies(self) -> Mapping[str, AuthorizationPolicy]:
        return self._tables.policies

    @property
    def peer_authentications(self) -> Mapping[str, PeerAuthentication]:
        return self._tables.peer_authentications

    @property
    def traffic_policies(self) -> Mapping[str, TrafficPolicy]:
        return self._tables.traffic_policies

    @property
    def endpoints(self) -> Mapping[str, tuple[Endpoint, ...]]:
        """By Service key: ready and not ready ones."""
        return self._tables.endpoints

    def claims(self, ip: IPAddress) -> tuple[str, ...]:
        """Who says the address is theirs: "wl:", "svc:" or "node:" and a key, sorted. More than one is a problem."""
        return tuple(sorted(self._tables.claims.get(ip, NO_KEYS)))

    def workload_at(self, ip: IPAddress) -> Workload | None:
        """The pod that alone has this address. Host-network pods have none; an address with two owners has none."""
        kind, key = self._owner(ip)
        return self.workloads[key] if kind == "wl" else None

    def service_at(self, ip: IPAddress) -> Service | None:
        """The Service that alone has this VIP."""
        kind, key = self._owner(ip)
        return self.services[key] if kind == "svc" else None

    def node_at(self, ip: IPAddress) -> Node | None:
        kind, key = self._owner(ip)
        return self.nodes[key] if kind == "node" else None

    def pod_network(self, ip: IPAddress) -> IPNetwork | None:
        """The network of some node's pods that has this address, whether or not a pod is known to."""
        for version, length in self._tables.lengths:
            if version == ip.version:
                network = ipaddress.ip_network((ip, length), strict=False)
                if network in self._tables.networks:
                    return network
        return None

    def _owner(self, ip: IPAddress) -> tuple[str, str]:
        match self._tables.claims.get(ip, NO_KEYS):
            case claims if len(claims) == 1:
                (claim,) = claims
                kind, _, key = claim.partition(":")
                return kind, key
        return "", ""

    def workloads_on(self, node: str) -> tuple[Workload, ...]:
        """The node's pods, sorted by key."""
        return tuple(self.workloads[key] for key in sorted(self._tables.on_node.get(node, NO_KEYS)))

    def workloads_in(self, namespace: str) -> tuple[Workload, ...]:
        """The namespace's pods, sorted by key."""
        return tuple(self.workloads[key] for key in sorted(self._tables.in_namespace.get(namespace, NO_KEYS)))

    def covered(self, namespace: str, selector: Mapping[str, str]) -> tuple[Workload, ...]:
        """The namespace's pods that a selector covers, sorted by key; an empty one covers all."""
        if not selector:
            return self.workloads_in(namespace)
        return tuple(self._tables.covered(namespace, selector))

    def populated(self) -> Iterable[str]:
        """The namespaces that have pods, in no particular order."""
        return self._tables.in_namespace

    def services_of(self, workload: Workload) -> tuple[Service, ...]:
        """The Services whose selector covers the pod, sorted by key."""
        return tuple(sorted(self._tables.services_of(workload), key=lambda service: service.key))

    def services_at(self, workload: Workload, port: int) -> tuple[Service, ...]:
        """Those of them that lead to this port of the pod."""
        return tuple(
            service
            for service in self.services_of(workload)
            if any(port in endpoint.ports.values() for endpoint in endpoints_of(service, workload))
        )

    def policies_in(self, namespace: str) -> tuple[AuthorizationPolicy, ...]:
        """Sorted by name."""
        return self._tables.policies_in.get(namespace, ())

    def peer_authentications_in(self, namespace: str) -> tuple[PeerAuthentication, ...]:
        """Sorted by name."""
        return self._tables.peer_authentications_in.get(namespace, ())

    def traffic_policies_in(self, namespace: str) -> tuple[TrafficPolicy, ...]:
        """Sorted by name."""
        return self._tables.traffic_policies_in.get(namespace, ())

    def problems(self) -> list[contradictions.Contradiction]:
        """What contradicts itself, sorted."""
        return contradictions.within(self._tables)


def diff(old: World, new: World) -> Changes:
    """What changed from old to new: at once if new was made from old, else by comparing all objects."""
    if new._made_from is not None and new._made_from[0] is old._mark:
        return new._made_from[1]
    if new is old:
        return Changes()
    before, after = old._tables, new._tables
    workloads = _changed(before.workloads, after.workloads)
    redefined = services = _changed(before.services, after.services)
    for tables in (before, after):
        behind = (tables.workloads[key] for key in workloads if key in tables.workloads)
        services |= {service.key for workload in behind for service in tables.services_of(workload)}
    return Changes(
        mesh=old.mesh != new.mesh,
        nodes=_changed(before.nodes, after.nodes),
        namespaces=_changed(before.namespaces, after.namespaces),
        workloads=workloads,
        services=services,
        redefined=redefined,
        policies=_changed(before.policies, after.policies),
        peer_authentications=_changed(before.peer_authentications, after.peer_authentications),
        traffic_policies=_changed(before.traffic_policies, after.traffic_policies),
        addresses=_changed(before.claims, after.claims),
        networks=before.networks != after.networks,
    )


def _changed(before: Mapping[K, object], after: Mapping[K, object]) -> frozenset[K]:
    if before is after:
        return frozenset()
    gone = frozenset(before.keys() - after.keys())
    # shared objects are the rule: `is` spares comparing their fields
    return gone.union(key for key, value in after.items() if (was := before.get(key)) is not value and was != value)
