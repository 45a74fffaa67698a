"""Which nouns' resources may be other ones in another World: as few as can be told without encoding them. Pure.

A Workload's resource also says which Services it is behind and which selector policies it lists. Their changes affect
it too, but only those of a selector, a port or a mode, and only where the selector covers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ambient.model.changes import Changes, namespace_of
from ambient.model.world import World, diff
from ambient.xds.selection import Selection, lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Keys."""

    mesh: bool
    nodes: Iterable[str]
    namespaces: Iterable[str]
    workloads: Iterable[str]
    services: Iterable[str]
    policies: Iterable[str]
    peer_authentications: Iterable[str]
    traffic_policies: Iterable[str]


def between(old: Selection, new: Selection) -> Affected:
    before, after = old.world, new.world
    changes = diff(before, after)
    if changes.mesh:
        return everything(before, after)
    services = {key for key in changes.services if before.services.get(key) != after.services.get(key)}
    moved = set(_inheriting_otherwise(old, new, changes.peer_authentications))
    return Affected(
        mesh=False,
        nodes=changes.nodes,
        namespaces=changes.namespaces,
        workloads=changes.workloads.union(
            _behind(before, after, services),
            _selected(before, after, changes),
            (pod.key for namespace in moved for pod in after.workloads_in(namespace)),
        ),
        services=services,
        policies=changes.policies,
        peer_authentications=changes.peer_authentications.union(
            each.key for namespace in moved for each in after.peer_authentications_in(namespace)
        ),
        traffic_policies=changes.traffic_policies,
    )


def everything(before: World, after: World) -> Affected:
    """A mesh-wide name is in most resources: what is the same all the same is found by its bytes."""
    return Affected(
        mesh=True,
        nodes=before.nodes.keys() | after.nodes.keys(),
        namespaces=before.namespaces.keys() | after.namespaces.keys(),
        workloads=before.workloads.keys() | after.workloads.keys(),
        services=before.services.keys() | after.services.keys(),
        policies=before.policies.keys() | after.policies.keys(),
        peer_authentications=before.peer_authentications.keys() | after.peer_authentications.keys(),
        traffic_policies=before.traffic_policies.keys() | after.traffic_policies.keys(),
    )


def _behind(before: World, after: World, services: Iterable[str]) -> Iterator[str]:
    """Workloads that list a Service which is not what it was, or did or will."""
    for key in services:
        old, new = before.services.get(key), after.services.get(key)
        if old and new and old.ports == new.ports and old.selector == new.selector:
            continue
        for service in (old, new):
            if service and service.selector:
                yield from (pod.key for pod in after.covered(service.namespace, service.selector))


def _selected(before: World, after: World, changes: Changes) -> Iterator[str]:
    """Workloads that list another policy, or one less, because of what a selector says or said."""
    for key in changes.policies:
        old, new = before.policies.get(key), after.policies.get(key)
        if old and new and lists(old) == lists(new) and old.selector == new.selector:
            continue
        for policy in (old, new):
            if policy and lists(policy):
                yield from _covered(after, policy.namespace, policy.selector)
    for key in changes.peer_authentications:
        for authentication in (before.peer_authentications.get(key), after.peer_authentications.get(key)):
            if authentication and authentication.selector:
                yield from (pod.key for pod in after.covered(authentication.namespace, authentication.selector))


def _covered(world: World, namespace: str, selector: Mapping[str, str]) -> Iterator[str]:
    """The root namespace's selectors look at all pods."""
    everywhere = namespace == world.mesh.root_namespace
    for each in world.populated() if everywhere else (namespace,):
        yield from (pod.key for pod in world.covered(each, selector))


def _inheriting_otherwise(old: Selection, new: Selection, changed: Iterable[str]) -> Iterator[str]:
    """Namespaces whose pods' mode is another where no selector says it."""
    namespaces = {namespace_of(key) for key in changed}
    if new.world.mesh.root_namespace in namespaces:
        namespaces.update(new.world.populated())
        namespaces.update(map(namespace_of, new.world.peer_authentications))
    return (each for each in namespaces if old.inherited(each) is not new.inherited(each))
