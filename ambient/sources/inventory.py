"""Objects to Worlds: fills in what a Pod inherits from its Namespace and Node, and keeps that true as they change.

Immutable, like the World it holds; the next one costs what the change costs. Where objects come from is not known here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ambient.model import mesh
from ambient.model.world import Kind, Noun, World
from ambient.sources.core import Pod
from ambient.sources.manifests import Object, Ref

TYPES: Mapping[str, Kind] = {
    "Node": mesh.Node,
    "Namespace": mesh.Namespace,
    "Pod": mesh.Workload,
    "Service": mesh.Service,
    "AuthorizationPolicy": mesh.AuthorizationPolicy,
    "PeerAuthentication": mesh.PeerAuthentication,
}


@dataclass(frozen=True, slots=True)
class Inventory:
    world: World
    pods: Mapping[str, Pod] = field(default_factory=dict)

    def apply(self, upserts: Iterable[tuple[Ref, Object]], removals: Iterable[Ref], *, revision: str) -> Inventory:
        """The next inventory. An object that is in both stays, as it is in `upserts`."""
        changed: dict[Ref, Object | None] = {**dict.fromkeys(removals), **dict(upserts)}
        parents = Parents(self.world, changed)
        pods = dict(self.pods)
        unsettled = {key for kind, key in changed for key in self._heirs(kind, key, parents)}
        nouns: list[Noun] = []
        gone: list[tuple[Kind, str]] = []
        for (kind, key), found in changed.items():
            if found is None:
                gone.append((TYPES[kind], key))
                pods.pop(key, None) if kind == "Pod" else None
            elif isinstance(found, Pod):
                pods[key] = found
                unsettled.add(key)
            else:
                nouns.append(found)
        nouns += [parents.settle(pods[key]) for key in sorted(unsettled) if key in pods]
        return Inventory(self.world.replace(nouns, gone, revision=revision), pods)

    def _heirs(self, kind: str, key: str, now: Parents) -> Iterable[str]:
        """The pods that look different because their Namespace or Node does."""
        before = Parents(self.world, {})
        if kind == "Namespace" and before.enrols(key) != now.enrols(key):
            return [workload.key for workload in self.world.workloads_in(key)]
        if kind == "Node" and before.locality(key) != now.locality(key):
            return [workload.key for workload in self.world.workloads_on(key)]
        return ()


@dataclass(frozen=True, slots=True)
class Parents:
    """Namespaces and Nodes as they will be: a World's, with changes on top."""

    world: World
    changed: Mapping[Ref, Object | None]

    def enrols(self, namespace: str) -> bool:
        found = self.changed.get(("Namespace", namespace), self.world.namespaces.get(namespace))
        return isinstance(found, mesh.Namespace) and found.enrolled

    def locality(self, node: str) -> mesh.Locality:
        found = self.changed.get(("Node", node), self.world.nodes.get(node))
        return found.locality if isinstance(found, mesh.Node) else mesh.Locality()

    def settle(self, pod: Pod) -> mesh.Workload:
        """The pod with what it inherits. On the host's network, or with Istio's sidecar in it, it is never enrolled."""
        wants = self.enrols(pod.workload.namespace) if pod.wants is None else pod.wants
        return dataclasses.replace(
            pod.workload,
            enrolled=wants and not pod.workload.host_network and not pod.sidecar,
            locality=self.locality(pod.workload.node),
        )
