"""From one World's tables to the next one's. Used by model.world only; no decisions, no consistency checks.

Tables and indices are brought up to date from the objects that changed: one changed pod never costs a walk over the
World, nor a copy of it.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from ambient.model import mesh
from ambient.model.changes import Changes, namespace_of
from ambient.model.revised import revised
from ambient.model.tables import (
    NO_KEYS,
    Endpoint,
    Kind,
    Noun,
    Tables,
    claims_of,
    covers,
    endpoints_of,
    first_pair,
    key_of,
    labels_of,
)

N = TypeVar("N", bound=Noun)
K = TypeVar("K", bound=Hashable)
Policy = TypeVar("Policy", mesh.AuthorizationPolicy, mesh.PeerAuthentication, mesh.TrafficPolicy)
TOKEN: Mapping[type, str] = {mesh.Workload: "wl:", mesh.Service: "svc:", mesh.Node: "node:"}


class Delta(Generic[N]):
    """One table's change: `pairs` of (old or None, new or None) by key, without those that are equal."""

    def __init__(self, kind: type[N], table: Mapping[str, N], wanted: Mapping[tuple[Kind, str], Noun | None]) -> None:
        self.pairs: dict[str, tuple[N | None, N | None]] = {}
        for (of, key), noun in wanted.items():
            if of is kind and table.get(key) != noun:
                self.pairs[key] = (table.get(key), noun if isinstance(noun, kind) else None)
        self.table = revised(table, {key: new for key, (_, new) in self.pairs.items()})

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self.pairs)

    def olds(self) -> Iterator[N]:
        return (old for old, _ in self.pairs.values() if old is not None)

    def news(self) -> Iterator[N]:
        return (new for _, new in self.pairs.values() if new is not None)


def next_tables(base: Tables, upserts: Iterable[Noun], removals: Iterable[tuple[Kind, str]]) -> tuple[Tables, Changes]:
    """Remove, then upsert. An upsert equal to what is there changes nothing."""
    wanted: dict[tuple[Kind, str], Noun | None] = dict.fromkeys(removals)
    wanted.update({(type(noun), key_of(noun)): noun for noun in upserts})
    nodes = Delta(mesh.Node, base.nodes, wanted)
    namespaces = Delta(mesh.Namespace, base.namespaces, wanted)
    workloads = Delta(mesh.Workload, base.workloads, wanted)
    services = Delta(mesh.Service, base.services, wanted)
    policies = Delta(mesh.AuthorizationPolicy, base.policies, wanted)
    authentications = Delta(mesh.PeerAuthentication, base.peer_authentications, wanted)
    traffic = Delta(mesh.TrafficPolicy, base.traffic_policies, wanted)

    claims, moved = _claims(base, nodes, workloads, services)
    networks = _regrouped(base.networks, nodes, lambda node: node.pod_networks)
    tables = Tables(
        nodes=nodes.table,
        namespaces=namespaces.table,
        workloads=workloads.table,
        services=services.table,
        policies=policies.table,
        peer_authentications=authentications.table,
        traffic_policies=traffic.table,
        claims=claims,
        contested=base.contested - moved | {ip for ip in moved if len(claims.get(ip, ())) > 1},
        networks=networks,
        lengths=_regrouped(
            base.lengths, nodes, lambda node: [(net.version, net.prefixlen) for net in node.pod_networks]
        ),
        on_node=_regrouped(base.on_node, workloads, lambda workload: [workload.node]),
        in_namespace=_regrouped(base.in_namespace, workloads, lambda workload: [workload.namespace]),
        labelled=_regrouped(base.labelled, workloads, labels_of),
        selecting=_regrouped(base.selecting, services, first_pair),
        policies_in=_by_namespace(base.policies_in, policies),
        peer_authentications_in=_by_namespace(base.peer_authentications_in, authentications),
        traffic_policies_in=_by_namespace(base.traffic_policies_in, traffic),
    )
    endpoints, resettled = _endpoints(base, tables, workloads, services)
    changes = Changes(
        nodes=nodes.keys,
        namespaces=namespaces.keys,
        workloads=workloads.keys,
        services=services.keys | resettled,
        redefined=services.keys,
        policies=policies.keys,
        peer_authentications=authentications.keys,
        traffic_policies=traffic.keys,
        addresses=moved,
        networks=networks is not base.networks,
    )
    return dataclasses.replace(tables, endpoints=endpoints), changes


def _regrouped(
    index: Mapping[K, frozenset[str]], delta: Delta[N], groups: Callable[[N], Iterable[K]]
) -> Mapping[K, frozenset[str]]:
    """Move the changed objects' keys from their old groups to their new ones."""
    leaves = ((group, key_of(old)) for old in delta.olds() for group in groups(old))
    joins = ((group, key_of(new)) for new in delta.news() for group in groups(new))
    return _moved(index, leaves, joins)[0]


def _moved(
    index: Mapping[K, frozenset[str]], leaves: Iterable[tuple[K, str]], joins: Iterable[tuple[K, str]]
) -> tuple[Mapping[K, frozenset[str]], frozenset[K]]:
    """The index with members taken out and put in, and the groups that are not what they were. No group is empty.

    A group may be large: one that a member leaves only to join it again is not copied.
    """
    left, joined = set(leaves), set(joins)
    members: dict[K, set[str]] = {}
    for group, member in left - joined:
        members.setdefault(group, set(index.get(group, NO_KEYS))).discard(member)
    for group, member in joined - left:
        members.setdefault(group, set(index.get(group, NO_KEYS))).add(member)
    after = {group: frozenset(now) for group, now in members.items() if now != index.get(group, NO_KEYS)}
    return revised(index, {group: now or None for group, now in after.items()}), frozenset(after)


def _claims(
    base: Tables, nodes: Delta[mesh.Node], workloads: Delta[mesh.Workload], services: Delta[mesh.Service]
) -> tuple[Mapping[mesh.IPAddress, frozenset[str]], frozenset[mesh.IPAddress]]:
    def tokens(objects: Iterable[mesh.Node | mesh.Workload | mesh.Service]) -> Iterator[tuple[mesh.IPAddress, str]]:
        return ((ip, TOKEN[type(noun)] + key_of(noun)) for noun in objects for ip in claims_of(noun))

    return _moved(
        base.claims,
        tokens(itertools.chain(nodes.olds(), workloads.olds(), services.olds())),
        tokens(itertools.chain(nodes.news(), workloads.news(), services.news())),
    )


def _by_namespace(index: Mapping[str, tuple[Policy, ...]], delta: Delta[Policy]) -> Mapping[str, tuple[Policy, ...]]:
    """The changed namespaces' policies again, sorted by name."""
    after: dict[str, tuple[Policy, ...] | None] = {}
    for namespace in {namespace_of(key) for key in delta.pairs}:
        here = {policy.key: policy for policy in index.get(namespace, ())}
        for key, (_, new) in delta.pairs.items():
            if namespace_of(key) == namespace:
                here.pop(key, None)
                if new is not None:
                    here[key] = new
        after[namespace] = tuple(here[key] for key in sorted(here)) or None
    return revised(index, after)


def _endpoints(
    base: Tables, now: Tables, workloads: Delta[mesh.Workload], services: Delta[mesh.Service]
) -> tuple[Mapping[str, tuple[Endpoint, ...]], frozenset[str]]:
    """Endpoints of changed Services anew, of the others only those of changed workloads; and whose were looked at."""
    after: dict[str, tuple[Endpoint, ...]] = {}
    for service in services.news():
        after[service.key] = tuple(
            endpoint for workload in now.backing(service) for endpoint in endpoints_of(service, workload)
        )
    for key, (old, new) in workloads.pairs.items():
        touched = {service.key: service for noun in (old, new) if noun for service in now.services_of(noun)}
        for service in touched.values():
            if service.key in services.pairs:
                continue
            mine = endpoints_of(service, new) if new and covers(service.selector, new.labels) else ()
            after[service.key] = _spliced(after.get(service.key, base.endpoints.get(service.key, ())), key, mine)
    gone = {key: None for key, (_, service_now) in services.pairs.items() if service_now is None}
    return revised(base.endpoints, {**after, **gone}), frozenset(after)


def _spliced(endpoints: tuple[Endpoint, ...], workload: str, mine: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """The endpoints with the workload's replaced by `mine`, order kept."""
    start = bisect.bisect_left(endpoints, workload, key=lambda endpoint: endpoint.workload)
    end = bisect.bisect_right(endpoints, workload, lo=start, key=lambda endpoint: endpoint.workload)
    return endpoints[:start] + mine + endpoints[end:]
