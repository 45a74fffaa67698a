"""What one World holds: objects by key, and the indices derived from them. Only values and look-ups.

A Tables is never changed once it is made: model.draft makes the next one, and both share what did not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ambient.model import mesh

Noun = (
    mesh.Node
    | mesh.Namespace
    | mesh.Workload
    | mesh.Service
    | mesh.AuthorizationPolicy
    | mesh.PeerAuthentication
    | mesh.TrafficPolicy
)
Kind = type[Noun]
Label = tuple[str, str, str]  # namespace, key, value
NO_KEYS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of one pod behind a Service, ready or not."""

    workload: str  # key
    address: mesh.IPAddress
    ready: bool
    draining: bool = False
    weight: int = 1
    ports: Mapping[int, int]  # service port -> target port; without a named port that this pod does not have


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    nodes: Mapping[str, mesh.Node] = field(default_factory=dict)
    namespaces: Mapping[str, mesh.Namespace] = field(default_factory=dict)
    workloads: Mapping[str, mesh.Workload] = field(default_factory=dict)
    services: Mapping[str, mesh.Service] = field(default_factory=dict)
    policies: Mapping[str, mesh.AuthorizationPolicy] = field(default_factory=dict)
    peer_authentications: Mapping[str, mesh.PeerAuthentication] = field(default_factory=dict)
    traffic_policies: Mapping[str, mesh.TrafficPolicy] = field(default_factory=dict)
    # derived
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)  # by service key; workload keys ascend
    claims: Mapping[mesh.IPAddress, frozenset[str]] = field(default_factory=dict)  # "wl:", "svc:" or "node:" + key
    contested: frozenset[mesh.IPAddress] = frozenset()  # addresses with more than one claim
    networks: Mapping[mesh.IPNetwork, frozenset[str]] = field(default_factory=dict)  # pods' -> node keys
    lengths: Mapping[tuple[int, int], frozenset[str]] = field(default_factory=dict)  # theirs: IP version, prefix length
    on_node: Mapping[str, frozenset[str]] = field(default_factory=dict)  # node -> workload keys
    in_namespace: Mapping[str, frozenset[str]] = field(default_factory=dict)  # namespace -> workload keys
    labelled: Mapping[Label, frozenset[str]] = field(default_factory=dict)  # workload keys
    selecting: Mapping[Label, frozenset[str]] = field(default_factory=dict)  # service keys, by one pair of the selector
    policies_in: Mapping[str, tuple[mesh.AuthorizationPolicy, ...]] = field(default_factory=dict)  # by namespace
    peer_authentications_in: Mapping[str, tuple[mesh.PeerAuthentication, ...]] = field(default_factory=dict)
    traffic_policies_in: Mapping[str, tuple[mesh.TrafficPolicy, ...]] = field(default_factory=dict)

    def services_of(self, workload: mesh.Workload) -> Iterator[mesh.Service]:
        """The Services whose selector covers the workload, in no particular order."""
        for label in labels_of(workload):
            for key in self.selecting.get(label, NO_KEYS):
                service = self.services[key]
                if covers(service.selector, workload.labels):
                    yield service

    def backing(self, service: mesh.Service) -> Iterator[mesh.Workload]:
        """The workloads that the Service's selector covers, sorted by key; none when it has no selector."""
        return self.covered(service.namespace, service.selector) if service.selector else iter(())

    def covered(self, namespace: str, selector: Mapping[str, str]) -> Iterator[mesh.Workload]:
        """The namespace's workloads that a selector, not an empty one, covers, sorted by key."""
        found = [self.labelled.get((namespace, *pair), NO_KEYS) for pair in selector.items()]
        for key in sorted(frozenset.intersection(*found)):
            yield self.workloads[key]


def key_of(noun: Noun) -> str:
    return noun.name if isinstance(noun, mesh.Node | mesh.Namespace) else noun.key


def covers(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels have every pair of the selector; an empty selector covers everything."""
    return selector.items() <= labels.items()


def labels_of(workload: mesh.Workload) -> Iterator[Label]:
    return ((workload.namespace, label, value) for label, value in workload.labels.items())


def first_pair(service: mesh.Service) -> Iterator[Label]:
    """The one pair of the selector under which `selecting` lists the Service, if it has a selector."""
    if service.selector:
        yield (service.namespace, *min(service.selector.items()))


def claims_of(noun: mesh.Node | mesh.Workload | mesh.Service) -> Iterator[mesh.IPAddress]:
    """The addresses that are this object's own: a host-network pod's are its node's."""
    match noun:
        case mesh.Node():
            yield from noun.addresses
        case mesh.Service():
            yield from noun.vips
        case mesh.Workload(host_network=False):
            yield from noun.addresses


def endpoints_of(service: mesh.Service, workload: mesh.Workload) -> tuple[Endpoint, ...]:
    """The workload as endpoints of the Service: one for each of its addresses, in a stable order."""
    ports = {}
    for port in service.ports:
        target = workload.ports.get(port.target) if isinstance(port.target, str) else port.target
        if target is not None:
            ports[port.port] = target
    return tuple(
        Endpoint(workload=workload.key, address=ip, ready=workload.ready, draining=workload.draining, ports=ports)
        for ip in sorted(workload.addresses, key=mesh.packed16)
    )
