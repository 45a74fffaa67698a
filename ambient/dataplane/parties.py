"""How records and metrics name the end of a connection that is known by its address. Pure."""

from __future__ import annotations

from ambient.model.mesh import Identity, IPAddress, Workload
from ambient.model.world import World
from ambient.observe.records import Party


def at(world: World, ip: IPAddress, identity: Identity | None = None) -> Party:
    """The workload at an address, or what else is known of it. `identity`: proven by a certificate."""
    workload = world.workload_at(ip)
    node = world.node_at(ip) if workload is None else None
    if node is not None and identity is None:
        return Party(workload=f"node/{node.name}", address=str(ip))
    return Party.of(workload, identity, str(ip))


def service(world: World, server: Workload, port: int, claimed: str = "") -> str:
    """The host name of the Service by which a client came to this port of a pod. Empty: nobody can tell.

    `claimed`: what the client's proxy says it was. That is not proven, so it only chooses among those it can be.
    """
    found = [service.hostname for service in world.services_at(server, port)]
    if claimed in found:
        return claimed
    return found[0] if len(found) == 1 else ""


def missing(key: str) -> Party:
    """A workload (namespace/name) the World does not have any more."""
    namespace, _, name = key.partition("/")
    return Party(workload=name, namespace=namespace)
