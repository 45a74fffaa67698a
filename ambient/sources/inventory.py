"""Objects to Worlds: fills in what a Pod inherits from its Namespace and Node, and keeps that true as they change.

Immutable, like the World it holds; the next one costs what the change costs. Where objects come from is not known here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ambient.model import mesh
from ambient.model.revised import revised
from ambient.model.world import Kind, Noun, World
from ambient.sources.core import Pod
from ambient.sources.manifests import GROUPS, SECURITY_KINDS, Object, Ref

TYPES: Mapping[str, Kind] = {
    "Node": mesh.Node,
    "Namespace": mesh.Namespace,
    "Pod": mesh.Workload,
    "Service": mesh.Service,
    "AuthorizationPolicy": mesh.AuthorizationPolicy,
    "PeerAuthentication": mesh.PeerAuthentication,
    "TrafficPolicy": mesh.TrafficPolicy,
}
Policy = mesh.AuthorizationPolicy | mesh.PeerAuthentication


@dataclass(frozen=True, slots=True)
class Inventory:
    world: World
    announced: bool = False  # pods say when they are captured; else they are taken to be as soon as they are enrolled
    pods: Mapping[str, Pod] = field(default_factory=dict)
    policies: Mapping[Ref, Policy] = field(default_factory=dict)  # under their own names

    def apply(self, upserts: Iterable[tuple[Ref, Object]], removals: Iterable[Ref], *, revision: str) -> Inventory:
        """The next inventory. An object that is in both stays, as it is in `upserts`."""
        changed: dict[Ref, Object | None] = {**dict.fromkeys(removals), **dict(upserts)}
        parents = Parents(self.world, changed)
        pods: dict[str, Pod | None] = {}
        policies: dict[Ref, Policy | None] = {}
        nouns: list[Noun] = []
        gone: list[tuple[Kind, str]] = []
        for ref, found in changed.items():
            if ref.kind in SECURITY_KINDS and (found is None or isinstance(found, Policy)):
                policies[ref] = found
                continue
            if ref.kind == "Pod" and (found is None or isinstance(found, Pod)):
                pods[ref.key] = found
            if found is None:
                gone.append((TYPES[ref.kind], ref.key))
            elif not isinstance(found, Pod):
                nouns.append(found)
        after = Inventory(self.world, self.announced, revised(self.pods, pods), revised(self.policies, policies))
        for kind, key in {(ref.kind, ref.key) for ref in policies}:
            gone += [(TYPES[kind], policy.key) for policy in self._named(kind, key)]
            nouns += after._named(kind, key)
        unsettled = {key for ref in changed for key in self._heirs(ref, parents)} | pods.keys()
        nouns += [parents.settle(after.pods[key], self.announced) for key in sorted(unsettled) if key in after.pods]
        return dataclasses.replace(after, world=self.world.replace(nouns, gone, revision=revision))

    def _named(self, kind: str, key: str) -> list[Policy]:
        """The policies of this name. If both API groups have one, both hold, and Istio's has its group in its name."""
        refs = [ref for group in GROUPS if (ref := Ref(kind, key, group)) in self.policies]
        found = [self.policies[ref] for ref in refs]
        twins = [dataclasses.replace(p, name=f"{p.name} ({ref.group})") for ref, p in zip(refs, found, strict=True)]
        return found[:1] + twins[1:]

    def _heirs(self, ref: Ref, now: Parents) -> Iterable[str]:
        """The pods that look different because their Namespace or Node does."""
        before = Parents(self.world, {})
        if ref.kind == "Namespace" and before.enrols(ref.key) != now.enrols(ref.key):
            return [workload.key for workload in self.world.workloads_in(ref.key)]
        if ref.kind == "Node" and before.locality(ref.key) != now.locality(ref.key):
            return [workload.key for workload in self.world.workloads_on(ref.key)]
        return ()


@dataclass(frozen=True, slots=True)
class Parents:
    """Namespaces and Nodes as they will be: a World's, with changes on top."""

    world: World
    changed: Mapping[Ref, Object | None]

    def enrols(self, namespace: str) -> bool:
        found = self.changed.get(Ref("Namespace", namespace), self.world.namespaces.get(namespace))
        return isinstance(found, mesh.Namespace) and found.enrolled

    def locality(self, node: str) -> mesh.Locality:
        found = self.changed.get(Ref("Node", node), self.world.nodes.get(node))
        return found.locality if isinstance(found, mesh.Node) else mesh.Locality()

    def settle(self, pod: Pod, announced: bool) -> mesh.Workload:
        """The pod with what it inherits. On the host's network, or with Istio's sidecar in it, it is never enrolled."""
        wants = self.enrols(pod.workload.namespace) if pod.wants is None else pod.wants
        enrolled = wants and not pod.workload.host_network and not pod.sidecar
        return dataclasses.replace(
            pod.workload,
            enrolled=enrolled,
            captured=pod.captured or (enrolled and not announced),
            locality=self.locality(pod.workload.node),
        )
