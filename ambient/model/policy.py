"""May this connection reach this pod? PeerAuthentication first, then AuthorizationPolicy. Pure; no I/O, no caching.

Semantics are Istio's at L4 (AuthorizationPolicy and PeerAuthentication references; where its parts disagree, the
stricter reading): see authorize() for the order of evaluation and model.match for what a rule matches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ambient.model.match import Connection, matching_rule
from ambient.model.mesh import (
    Action,
    AuthorizationPolicy,
    Identity,
    IPAddress,
    MtlsMode,
    PeerAuthentication,
    Workload,
)
from ambient.model.tables import covers
from ambient.model.world import World

REASONS = frozenset(
    {"unknown_workload", "unknown_source", "source_mismatch", "strict_mtls", "denied_by_policy", "no_allow_matched"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    rule: str  # "AuthorizationPolicy shop/web rule 0", "no policy", ...
    deps: frozenset[str]  # tokens: the decision stands until Changes.touched() has one of them
    dry_run: tuple[str, ...] = ()  # what dry-run policies would have done, in sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    rule: str
    reason: str  # stable: one of REASONS
    why: str  # a sentence
    deps: frozenset[str]


def decide(
    world: World,
    server: Workload,
    *,
    peer: Identity | None,
    source: IPAddress,
    to: IPAddress,
    port: int,
    node_local: bool = False,
) -> Allow | Deny:
    """Judge a connection to `server` that asks for `to`:`port` (the pod's address and the app's real port).

    peer: the identity that was proven for the other end, None when there was none (plaintext). A proven identity must
    come from an address of one of its pods. Plaintext from the pod's own Node to a port that one of the pod's probes
    names passes whatever is written: that is how kubelet calls. Everything else of the Node is plaintext like any.
    node_local: the source is an address of the pod's Node, though the World may not know it (a pod network's gateway).
    """
    deps = frozenset(
        {
            "mesh",
            "wl:" + server.key,
            f"ip:{source}",
            "policy:" + server.namespace,
            "policy:" + world.mesh.root_namespace,
        }
    )
    known = world.workloads.get(server.key)
    if known is None or known.uid != server.uid:
        why = f"pod {server.key} (uid {server.uid}) is not, or no longer, in the mesh's configuration"
        return Deny(rule="no workload", reason="unknown_workload", why=why, deps=deps)
    if peer is None:
        node_local = node_local or _is_own_node(world, known, source)
        if node_local and port in known.probe_ports:
            return Allow(rule=f"node-local probe of port {port} from {source}, of Node {known.node}", deps=deps)
        mode, said_by = mtls_mode(world, known, port)
        if mode is MtlsMode.STRICT:
            why = f"{said_by} wants mutual TLS on port {port} of pod {known.key}, and {source} came without"
            if node_local:
                why += "; its own Node may call the ports that its probes name, " + _listed(known.probe_ports)
            return Deny(rule=said_by, reason="strict_mtls", why=why, deps=deps)
    else:
        if holder := world.workload_at(source):
            deps |= {"wl:" + holder.key}
        if problem := check_source(world, peer, source):
            reason, why = problem
            return Deny(rule="source address", reason=reason, why=why, deps=deps)
    connection = Connection(peer=peer, source=source, to=to, port=port)
    return authorize([*_applying(world, known)], connection, deps)


def authorize(policies: list[AuthorizationPolicy], connection: Connection, deps: frozenset[str]) -> Allow | Deny:
    """AuthorizationPolicy alone: a matching DENY refuses; else, with no ALLOW policy, all may; else one must match.

    `policies` are those that apply to the server. Dry-run ones never decide; what they would do is reported.
    """
    live = [policy for policy in policies if not policy.dry_run]
    trial = _would(policies, connection)
    for policy in live:
        if policy.action is Action.DENY and (index := matching_rule(policy, connection)) is not None:
            rule = _named(policy, index)
            why = f"{rule} denies {_who(connection)} on port {connection.port}"
            return Deny(rule=rule, reason="denied_by_policy", why=why, deps=deps)
    allowing = [policy for policy in live if policy.action is Action.ALLOW]
    if not allowing:
        return Allow(
            rule="no policy" if not live else "no ALLOW policy, no DENY rule matched", deps=deps, dry_run=trial
        )
    for policy in allowing:
        if (index := matching_rule(policy, connection)) is not None:
            return Allow(rule=_named(policy, index), deps=deps, dry_run=trial)
    names = ", ".join(policy.key for policy in allowing)
    why = f"no rule of AuthorizationPolicy {names} allows {_who(connection)} on port {connection.port}"
    return Deny(rule=f"AuthorizationPolicy {names}", reason="no_allow_matched", why=why, deps=deps)


def _would(policies: list[AuthorizationPolicy], connection: Connection) -> tuple[str, ...]:
    """What the dry-run policies alone would have done."""
    trial = [policy for policy in policies if policy.dry_run]
    denying = [policy for policy in trial if policy.action is Action.DENY]
    allowing = [policy for policy in trial if policy.action is Action.ALLOW]
    found = [
        f"{_named(policy, index)} would deny"
        for policy in denying
        if (index := matching_rule(policy, connection)) is not None
    ]
    matched = [
        f"{_named(policy, index)} would allow"
        for policy in allowing
        if (index := matching_rule(policy, connection)) is not None
    ]
    if allowing and not matched:
        names = ", ".join(policy.key for policy in allowing)
        matched = [f"no rule of AuthorizationPolicy {names} matched: would deny"]
    return (*found, *matched)


def _applying(world: World, server: Workload) -> Iterator[AuthorizationPolicy]:
    """The root namespace's policies look at all pods, others at their own namespace's. A waypoint's are not for L4."""
    for namespace in sorted({world.mesh.root_namespace, server.namespace}):
        for policy in world.policies_in(namespace):
            if not policy.targets and covers(policy.selector, server.labels):
                yield policy


def mtls_mode(world: World, server: Workload, port: int) -> tuple[MtlsMode, str]:
    """The mode that holds for a port of the pod, and the resource that says so.

    The nearest one that is not UNSET: port, workload, namespace, mesh. Of two in one scope the older holds, as in
    Istio. A port counts only where a selector names the workload, and a selector in the root namespace counts nowhere.
    DISABLE permits plaintext as PERMISSIVE does; tunnels are always mutual TLS, so it takes nothing away.
    """
    workload = workload_peer_authentication(world, server)
    if workload and (mode := workload.port_modes.get(port)):
        return mode, f"PeerAuthentication {workload.key} port {port}"
    if workload and workload.mode:
        return workload.mode, f"PeerAuthentication {workload.key}"
    return inherited_mtls_mode(world, server.namespace)


def workload_peer_authentication(world: World, server: Workload) -> PeerAuthentication | None:
    """The one that holds for the pod by its selector."""
    own = _own_peer_authentications(world, server.namespace)
    return _oldest(p for p in own if p.selector and covers(p.selector, server.labels))


def inherited_mtls_mode(world: World, namespace: str) -> tuple[MtlsMode, str]:
    """The mode of the namespace's pods for which no selector says another, and the resource that says so."""
    in_namespace = _oldest(p for p in _own_peer_authentications(world, namespace) if not p.selector)
    in_mesh = _oldest(p for p in world.peer_authentications_in(world.mesh.root_namespace) if not p.selector)
    for said_by in (in_namespace, in_mesh):
        if said_by and said_by.mode:
            return said_by.mode, f"PeerAuthentication {said_by.key}"
    return MtlsMode.PERMISSIVE, "no PeerAuthentication"


def _own_peer_authentications(world: World, namespace: str) -> tuple[PeerAuthentication, ...]:
    """The root namespace's speak for the mesh, not for it."""
    return world.peer_authentications_in(namespace) if namespace != world.mesh.root_namespace else ()


def _oldest(policies: Iterator[PeerAuthentication]) -> PeerAuthentication | None:
    return min(policies, key=lambda policy: (policy.created, policy.name), default=None)


def check_source(world: World, peer: Identity, source: IPAddress) -> tuple[str, str] | None:
    """A reason and a sentence if the address a proven identity comes from is not one of its pods'."""
    holder = world.workload_at(source)
    if holder is None:
        return "unknown_source", f"{peer} came from {source}, which is no pod's address"
    if (expected := holder.identity(world.mesh.trust_domain)) != peer:
        return "source_mismatch", f"{peer} came from {source}, which is pod {holder.key}'s ({expected})"
    return None


def _is_own_node(world: World, server: Workload, source: IPAddress) -> bool:
    node = world.node_at(source)
    return node is not None and node.name == server.node


def _listed(ports: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(ports))) or "of which there are none"


def _named(policy: AuthorizationPolicy, index: int) -> str:
    return f"AuthorizationPolicy {policy.key} rule {index}"


def _who(connection: Connection) -> str:
    return str(connection.peer) if connection.peer else f"{connection.source} (no identity)"
