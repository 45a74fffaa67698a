"""What the node knows of its pods' sandboxes before the World does. Pure: values, and a World with them laid over it.

The World learns a pod's address when kubelet has told the API server, and forgets it later than the pod does. The CNI
result is earlier and right. So until the World says something new, what a sandbox has stands for what the World says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ambient.model.mesh import IPAddress, Workload
from ambient.model.world import World

NOTHING: frozenset[IPAddress] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    container: str  # the runtime's id
    pod: str  # workload key
    uid: str
    cookie: int  # of its network namespace
    addresses: tuple[IPAddress, ...]  # none: it is gone, and the pod has no other yet
    stale: frozenset[frozenset[IPAddress]]  # what the World may still say, and is not so any more


def arrived(
    container: str, cookie: int, addresses: tuple[IPAddress, ...], workload: Workload, before: Sandbox | None
) -> Sandbox:
    """A sandbox was made for the pod; `before`: the one it had. `workload`: as the source has it."""
    return Sandbox(
        container=container,
        pod=workload.key,
        uid=workload.uid,
        cookie=cookie,
        addresses=addresses,
        stale=_stale(workload, before) - {frozenset(addresses)},
    )


def departed(sandbox: Sandbox, workload: Workload | None) -> Sandbox:
    """Its network is taken down. The pod may live on in the World, and get another sandbox."""
    return replace(sandbox, addresses=(), stale=_stale(workload, sandbox))


def overlay(world: World, sandboxes: Iterable[Sandbox]) -> World:
    """The World as the sandboxes know better; the same object where they do not."""
    changed = []
    for sandbox in sandboxes:
        workload = world.workloads.get(sandbox.pod)
        if workload is None or workload.uid != sandbox.uid:
            continue
        if frozenset(workload.addresses) in sandbox.stale and workload.addresses != sandbox.addresses:
            changed.append(replace(workload, addresses=sandbox.addresses))
    return world.replace(changed, revision=world.revision) if changed else world


def is_over(world: World, sandbox: Sandbox) -> bool:
    """Whether the World has nothing to say any more of the sandbox's pod."""
    workload = world.workloads.get(sandbox.pod)
    return workload is None or workload.uid != sandbox.uid


def _stale(workload: Workload | None, before: Sandbox | None) -> frozenset[frozenset[IPAddress]]:
    said = {NOTHING}
    if workload is not None:
        said.add(frozenset(workload.addresses))
    if before is not None:
        said |= before.stale | {frozenset(before.addresses)}
    return frozenset(said)
