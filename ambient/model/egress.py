"""How a pod may send: TrafficPolicies, its namespace's labels and the mesh's default, in one. Pure.

Every field has its own nearest word: a policy that selects the pod, one of the whole namespace, the namespace's label,
one of the root namespace, the mesh's configuration. Of two policies in one scope the older holds, as with
PeerAuthentication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ambient.model.mesh import Destinations, IPAddress, OutboundMode, TrafficPolicy, Workload
from ambient.model.tables import covers
from ambient.model.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """What a pod may dial that the mesh does not know."""

    mode: OutboundMode
    said_by: str
    allowed: tuple[Destinations, ...] = ()  # though the mode is REGISTRY_ONLY

    def permits(self, to: IPAddress, port: int) -> bool:
        return self.mode is OutboundMode.ALLOW_ANY or any(
            any(to in network for network in each.networks) and (not each.ports or port in each.ports)
            for each in self.allowed
        )


def outbound(world: World, client: Workload) -> Outbound:
    near, wide = _policies(world, client, lambda policy: policy.outbound is not None)
    namespace = world.namespaces.get(client.namespace)
    if near and near.outbound:
        return Outbound(mode=near.outbound, said_by=f"TrafficPolicy {near.key}", allowed=near.allowed)
    if namespace and namespace.outbound:
        return Outbound(mode=namespace.outbound, said_by=f"namespace {client.namespace}")
    if wide and wide.outbound:
        return Outbound(mode=wide.outbound, said_by=f"TrafficPolicy {wide.key}", allowed=wide.allowed)
    return Outbound(mode=world.mesh.outbound, said_by="the mesh")


def requires_mtls(world: World, client: Workload) -> str:
    """Who says that the pod must not send in the clear to the mesh's pods; empty: nobody does."""
    near, wide = _policies(world, client, lambda policy: policy.require_mtls is not None)
    namespace = world.namespaces.get(client.namespace)
    if near is not None:
        return f"TrafficPolicy {near.key}" if near.require_mtls else ""
    if namespace and namespace.require_mtls:
        return f"namespace {client.namespace}"
    return f"TrafficPolicy {wide.key}" if wide and wide.require_mtls else ""


def deps(world: World, client: Workload) -> frozenset[str]:
    """The tokens of what is looked at here, beyond the pod and the mesh's configuration."""
    return frozenset({"ns:" + client.namespace, "traffic:" + client.namespace, "traffic:" + world.mesh.root_namespace})


def _policies(
    world: World, client: Workload, speaks: Callable[[TrafficPolicy], bool]
) -> tuple[TrafficPolicy | None, TrafficPolicy | None]:
    """The nearest one of the pod's own namespace, and the mesh's. In the root namespace a selector counts nowhere."""
    root = world.mesh.root_namespace
    own = list(filter(speaks, world.traffic_policies_in(client.namespace))) if client.namespace != root else []
    selecting = _oldest(policy for policy in own if policy.selector and covers(policy.selector, client.labels))
    whole = _oldest(policy for policy in own if not policy.selector)
    wide = _oldest(policy for policy in filter(speaks, world.traffic_policies_in(root)) if not policy.selector)
    return selecting or whole, wide


def _oldest(policies: Iterator[TrafficPolicy]) -> TrafficPolicy | None:
    return min(policies, key=lambda policy: (policy.created, policy.name), default=None)
