"""May two pods of one node talk plainly, the kernel vouching for both? Pure.

What is direct is not encrypted: its bytes never leave the node's memory. What it must not lack is the rest of what a
tunnel gives: both ends are known (the kernel names their network namespaces), and the destination's own judgement is
the same, policy.decide() with the client's identity. So STRICT and `mtls: Required`, which ask who is talking, are met;
who wants encryption even here says so (ambient.dev/same-node: mtls), at either end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ambient.model import policy
from ambient.model.mesh import TUNNEL_PORT, IPAddress, SameNode, Workload
from ambient.model.world import World

MOST_ENDPOINTS = 16  # that the kernel chooses among: what has more is the engine's (bpf/abi.h, AMB_ENDPOINTS)
_DENIES = frozenset({"same_node_mtls", "waypoint"})
# Labels that lead a pod's connections through a waypoint, which alone may then dial it.
WAYPOINT = ("ambient.dev/waypoint", "istio.io/use-waypoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    allow: policy.Allow  # of the destination
    deps: frozenset[str]  # tokens: it stands until Changes.touched() has one of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Indirect:
    """Not like this: through the engines, as between nodes, where it is judged again."""

    reason: str  # stable: another_node, not_captured, no_address, tunnel_port, excluded_port, same_node_mtls, waypoint,
    #              or of policy.Deny
    why: str
    rule: str
    denied: bool  # not even for a connection that is open: else what is direct may stay so to its end
    deps: frozenset[str]

    @property
    def said(self) -> str:
        """Rule and sentence in one, as records have it."""
        return self.why if self.rule in self.why else f"{self.rule}: {self.why}"


def between(
    world: World, client: Workload, server: Workload, to: IPAddress, port: int, *, source: IPAddress | None = None
) -> Direct | Indirect:
    """Judge a connection of `client` to `server`, at its address `to` and the app's own port.

    source: the client's address where it is known; else it must be allowed from every one that it may come from.
    """
    deps = frozenset({"mesh", f"ip:{to}", *_looked_at(client), *_looked_at(server)})
    obstacle = _obstacle(world, client, server, to, port)
    if obstacle is not None and (obstacle.denied or not _polices(server, port)):
        return replace(obstacle, deps=deps)
    sources = [source] if source else [ip for ip in client.addresses if ip.version == to.version]
    allow: policy.Allow | None = None
    for each in sources:
        peer = client.identity(world.mesh.trust_domain)
        found = policy.decide(world, server, peer=peer, source=each, to=to, port=port)
        deps |= found.deps
        if isinstance(found, policy.Deny):
            return Indirect(reason=found.reason, why=found.why, rule=found.rule, denied=True, deps=deps)
        allow = allow or found
    if obstacle is not None:  # after the policies: what only keeps new ones away must hide no denial of the open ones
        return replace(obstacle, deps=deps)
    if allow is None:
        why = f"pod {client.key} has no IPv{to.version} address"
        return Indirect(reason="no_address", why=why, rule=why, denied=False, deps=deps)
    return Direct(allow=allow, deps=deps)


def _polices(server: Workload, port: int) -> bool:
    """Whether the server's policies hold for it at all."""
    return server.tunnelled and port not in server.capture.exclude_inbound_ports


def wish(world: World, pod: Workload) -> tuple[SameNode, str]:
    """What the pod's side wants, and who says so: the nearest of pod, namespace and mesh."""
    if pod.same_node:
        return pod.same_node, f"pod {pod.key}"
    namespace = world.namespaces.get(pod.namespace)
    if namespace and namespace.same_node:
        return namespace.same_node, f"namespace {pod.namespace}"
    return world.mesh.same_node, "the mesh"


def _obstacle(world: World, client: Workload, server: Workload, to: IPAddress, port: int) -> Indirect | None:
    """Where it is not policy that stands in the way; without what it depends on."""

    def is_in_the_way(reason: str, why: str) -> Indirect:
        return Indirect(reason=reason, why=why, rule=why, denied=reason in _DENIES, deps=frozenset())

    if client.key == server.key or not client.node or client.node != server.node:
        return is_in_the_way("another_node", f"{client.key} and {server.key} are not two pods of one node")
    # Those that deny come first: what only keeps new ones away must hide none of them.
    for pod in (client, server):
        wanted, said_by = wish(world, pod)
        if wanted is SameNode.MTLS:
            return is_in_the_way("same_node_mtls", f"{said_by} wants mutual TLS on the node, too")
    if label := _waypoint(world, server):
        return is_in_the_way("waypoint", f"{label} leads to {server.key} through a waypoint")
    for pod in (client, server):
        if not pod.tunnelled:
            return is_in_the_way("not_captured", f"pod {pod.key} is not captured")
    holder = world.workload_at(to)
    if holder is None or holder.key != server.key:
        return is_in_the_way("no_address", f"{to} is not {server.key}'s alone")
    if port == TUNNEL_PORT:
        return is_in_the_way("tunnel_port", f"port {port} is the tunnels'")
    if port in server.capture.exclude_inbound_ports:
        return is_in_the_way("excluded_port", f"pod {server.key} keeps port {port} out of the mesh")
    return None


def _waypoint(world: World, server: Workload) -> str:
    """The nearest word: a pod may opt out of its namespace's."""
    namespace = world.namespaces.get(server.namespace)
    for labels in (server.labels, namespace.labels if namespace else {}):
        for key in WAYPOINT:
            if name := labels.get(key):
                return "" if name == "none" else f"{key}: {name}"
    return ""


def _looked_at(pod: Workload) -> tuple[str, str]:
    return f"wl:{pod.key}", f"ns:{pod.namespace}"
