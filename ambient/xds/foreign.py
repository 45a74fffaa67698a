"""What istiod does not say and a World needs: the root namespace, and the Nodes with their addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ambient.model import mesh
from ambient.model.world import World


def nodes(world: World, names: Iterable[str]) -> Iterable[mesh.Node]:
    """Nodes as their pods tell of them: a host-network pod's addresses are its node's."""
    for name in names:
        pods = world.workloads_on(name)
        addresses = (ip for pod in pods if pod.host_network for ip in pod.addresses)
        if name and pods:
            yield mesh.Node(name=name, addresses=tuple(dict.fromkeys(addresses)), locality=pods[0].locality)


def with_nodes(before: World, after: World, keys: Iterable[str]) -> World:
    """`after` with the Nodes that the Workloads of these keys run on, or ran on before; those without a pod go."""
    touched = {pod.node for world in (before, after) for key in keys if (pod := world.workloads.get(key)) is not None}
    found = [*nodes(after, sorted(touched))]
    gone = touched.difference(node.name for node in found)
    return after.replace(found, [(mesh.Node, name) for name in gone], revision=after.revision)
