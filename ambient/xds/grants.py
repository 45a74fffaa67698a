"""Whether a caller may have a certificate of an identity. Pure: the World and the caller in, a verdict out."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.model.mesh import Identity
from ambient.model.world import World
from ambient.xds.caller import Caller


@dataclass(frozen=True, slots=True)
class Granted:
    pod: str  # namespace/name: one for whose sake


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str  # stable snake_case
    text: str


def judge(world: World, caller: Caller, identity: Identity) -> Granted | Refused:
    """A node gets the identities of the pods it runs and could capture, and no others: whoever owns the node has these
    pods in hand anyway, and is to have nothing more."""
    asked = f"{caller.namespace}/{caller.pod} asked for {identity}"
    if identity.trust_domain != world.mesh.trust_domain:
        return Refused("foreign_trust_domain", f"{asked}; this mesh is {world.mesh.trust_domain!r}")
    for workload in world.workloads_on(caller.node):
        if (workload.namespace, workload.service_account) != (identity.namespace, identity.service_account):
            continue
        if not workload.host_network:
            return Granted(workload.key)
    return Refused("not_on_node", f"{asked}; no pod of that identity that could be captured runs on node {caller.node}")
