"""Where a captured connection goes. Pure and total: one plan for every question; model.policy says who may.

The destination's agent decides about access; nothing here allows anything. It only refuses what cannot or must not
leave: no endpoint, a destination outside the registry where only that is wanted, plaintext where mTLS is required.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from ambient.model import egress
from ambient.model.mesh import (
    Identity,
    IPAddress,
    IPNetwork,
    MtlsMode,
    OutboundMode,
    Service,
    TrafficDistribution,
    Workload,
)
from ambient.model.policy import mtls_mode
from ambient.model.world import Endpoint, World

FALLBACKS = 2  # endpoints outside the preferred locality that are named as well: as many as the engine retries


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One place to dial. With an identity: through a tunnel to `address`, expecting it; without: in the clear."""

    address: IPAddress
    port: int  # the app's own
    weight: int  # chance among the choices; 0: only when the others failed
    workload: Workload | None
    identity: Identity | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    choices: tuple[Choice, ...]  # never empty; the more preferred first
    service: Service | None
    why: str
    deps: frozenset[str]  # tokens: the plan stands until Changes.touched() has one of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Passthrough:
    """Dial what was asked for, in the clear."""

    why: str
    deps: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    reason: (
        str  # stable: ambiguous_address, not_in_registry, no_such_port, no_healthy_endpoint, mtls_required, unknown_pod
    )
    why: str
    deps: frozenset[str]


Plan = Carry | Passthrough | Refuse


def plan(
    world: World,
    client: Workload,
    to: IPAddress,
    port: int,
    *,
    avoid: Container[tuple[IPAddress, int]] = (),
    host: Container[IPAddress] = (),
) -> Plan:
    """Plan a connection of `client` to `to`:`port`.

    avoid: (address, port) of endpoints set aside for a while; host: the addresses of the client's node, as it tells
    them itself. A Node names only some of them.
    """
    deps = frozenset({"mesh", "wl:" + client.key, f"ip:{to}"}) | egress.deps(world, client)
    if to in client.addresses or to.is_loopback:
        return Passthrough(why=f"{to} is pod {client.key} itself", deps=deps)
    claims = world.claims(to)
    if len(claims) > 1:
        why = f"{to} has more than one owner ({', '.join(claims)}): nobody can say who would answer"
        return Refuse(reason="ambiguous_address", why=why, deps=deps)
    if service := world.service_at(to):
        return _to_service(world, client, service, to, port, avoid, deps | {"svc:" + service.key})
    if workload := world.workload_at(to):
        return _to_pod(world, client, workload, to, port, deps | {"wl:" + workload.key})
    if node := world.node_at(to):
        return Passthrough(why=f"{to} is Node {node.name}: what runs on its own network is outside the mesh", deps=deps)
    if network := awaited(world, client, to, port, host=host):
        why = f"{to} is of the pod network {network}, and the mesh knows no pod that has it"
        return Refuse(reason="unknown_pod", why=why, deps=deps | {"networks"})
    return _to_unknown(world, client, to, port, deps | {"networks"})


def awaited(
    world: World, client: Workload, to: IPAddress, port: int, *, host: Container[IPAddress]
) -> IPNetwork | None:
    """The pod network of an address that nobody is known to have: its pod is gone, or too new to be known.

    Such a pod may want mutual TLS, so the client must not dial it in the clear. None for any other address, and for one
    that a policy lists.
    """
    if world.claims(to) or to in host:
        return None
    outbound = egress.outbound(world, client)
    listed = outbound.mode is OutboundMode.REGISTRY_ONLY and outbound.permits(to, port)
    return None if listed else world.pod_network(to)


def _to_unknown(world: World, client: Workload, to: IPAddress, port: int, deps: frozenset[str]) -> Plan:
    outbound = egress.outbound(world, client)
    if not outbound.permits(to, port):
        beside = " and what it lists" if outbound.allowed else ""
        why = f"{to}:{port} is no Service, pod or node, and {outbound.said_by} allows only those{beside}"
        return Refuse(reason="not_in_registry", why=f"{why} (outbound: registry-only)", deps=deps)
    return Passthrough(why=f"{to} is unknown to the mesh", deps=deps)


def _to_pod(world: World, client: Workload, pod: Workload, to: IPAddress, port: int, deps: frozenset[str]) -> Plan:
    deps |= _capture_deps(world, [pod])
    if problem := _clear_forbidden(world, client, pod, port):
        return Refuse(reason="mtls_required", why=f"{to}: {problem}", deps=deps)
    choice = _choice(world, client, pod, to, port, 1)
    deps |= {"svcs:" + pod.namespace}
    service = _headless_at(world, pod, port)
    return Carry(choices=(choice,), service=service, why=f"{to} is pod {pod.key}", deps=deps)


def _headless_at(world: World, pod: Workload, port: int) -> Service | None:
    """The headless Service the client may have meant, if only one can be it: for telemetry, not routing."""
    found = [service for service in world.services_at(pod, port) if not service.vips]
    return found[0] if len(found) == 1 else None


def _to_service(
    world: World,
    client: Workload,
    service: Service,
    vip: IPAddress,
    port: int,
    avoid: Container[tuple[IPAddress, int]],
    deps: frozenset[str],
) -> Plan:
    name = f"Service {service.key}"
    if port not in {known.port for known in service.ports}:
        ports = ", ".join(str(known.port) for known in service.ports) or "none"
        return Refuse(reason="no_such_port", why=f"{name} has no port {port}, its ports are: {ports}", deps=deps)
    if not service.selector:
        return Passthrough(why=f"{name} has no selector: its endpoints are not the mesh's", deps=deps)
    usable = _serving(world, client, service, vip, port)
    if not usable:
        where = f" on node {client.node}" if service.local_only else ""
        every = len({e.workload for e in world.endpoints[service.key]})
        why = f"{name} port {port} has no ready endpoint{where} ({every} known)"
        return Refuse(reason="no_healthy_endpoint", why=why, deps=deps)
    deps |= _capture_deps(world, (world.workloads[e.workload] for e in usable))
    problems = [_clear_forbidden(world, client, world.workloads[e.workload], e.ports[port]) for e in usable]
    if all(problems):
        return Refuse(reason="mtls_required", why=f"{name} port {port}: {problems[0]}", deps=deps)
    usable = [e for e, problem in zip(usable, problems, strict=True) if not problem]
    choices = tuple(
        _choice(world, client, world.workloads[endpoint.workload], endpoint.address, endpoint.ports[port], weight)
        for endpoint, weight in _weighed(world, client, service, port, usable, avoid)
    )
    return Carry(choices=choices, service=service, why=f"{name}: {_preference(service, choices, usable)}", deps=deps)


def _serving(world: World, client: Workload, service: Service, vip: IPAddress, port: int) -> list[Endpoint]:
    """The endpoints that are ready; while there is none, those that are leaving but still serve, as with kube-proxy."""
    known = [e for e in world.endpoints[service.key] if port in e.ports]
    found: list[Endpoint] = []
    for some in ([e for e in known if e.ready or service.publish_not_ready], [e for e in known if e.draining]):
        found = [e for e in some if e.address.version == vip.version] or some
        if service.local_only:
            found = [e for e in found if world.workloads[e.workload].node == client.node]
        if found:
            break
    return found


def _weighed(
    world: World,
    client: Workload,
    service: Service,
    port: int,
    usable: list[Endpoint],
    avoid: Container[tuple[IPAddress, int]],
) -> list[tuple[Endpoint, int]]:
    """The closest endpoints by weight, then with weight 0 those set aside and a few that are farther away.

    An endpoint is set aside only while others exist, anywhere: a farther one that works is better than a near one that
    does not.
    """
    good = [e for e in usable if (e.address, e.ports[port]) not in avoid] or usable
    set_aside = {id(e) for e in usable} - {id(e) for e in good}
    rank = {id(e): closeness(service.distribution, client, world.workloads[e.workload]) for e in usable}
    best = max(rank[id(e)] for e in good)
    near = [e for e in good if rank[id(e)] == best]
    aside = [e for e in usable if id(e) in set_aside and rank[id(e)] >= best]
    farther = sorted((e for e in good if rank[id(e)] < best), key=lambda e: -rank[id(e)])
    return [(e, e.weight) for e in near] + [(e, 0) for e in farther[:FALLBACKS] + aside]


def closeness(distribution: TrafficDistribution, client: Workload, server: Workload) -> int:
    """How much of where the client is the server shares, as far as the distribution cares: higher is preferred.

    Region, zone and node are compared from the outside in; what is unknown is shared with nobody.
    """
    if distribution is TrafficDistribution.ANY:
        return 0
    here, there = client.locality, server.locality
    same_region = here.region == there.region
    same_zone = same_region and here.zone == there.zone != ""
    if distribution is TrafficDistribution.SAME_NODE and client.node == server.node != "":
        return 3
    if same_zone:
        return 2
    return int(same_region and here.region != "")


def _choice(world: World, client: Workload, server: Workload, ip: IPAddress, port: int, weight: int) -> Choice:
    """A pod that dials itself through a VIP never leaves its network namespace: there is nothing to encrypt."""
    tunnel = server.tunnelled and server.key != client.key
    identity = server.identity(world.mesh.trust_domain) if tunnel else None
    return Choice(address=ip, port=port, weight=weight, workload=server, identity=identity)


def _clear_forbidden(world: World, client: Workload, server: Workload, port: int) -> str:
    """Why the client must not dial this pod in the clear; empty if it may, or will not.

    A pod that is enrolled but not captured yet has no tunnels to offer. It is dialled in the clear as it was before it
    was enrolled, but not where it says STRICT: captured by now it would refuse, and if not, nobody else would.
    """
    if server.tunnelled or server.key == client.key:
        return ""
    waiting = _awaits_capture(server)
    problem = f"pod {server.key} is {'enrolled but not captured yet' if waiting else 'not enrolled'}"
    if said_by := egress.requires_mtls(world, client):
        return f"{problem}, and {said_by} requires mutual TLS"
    mode, said_by = mtls_mode(world, server, port) if waiting else (MtlsMode.PERMISSIVE, "")
    return f"{problem}, and {said_by} wants mutual TLS on its port {port}" if mode is MtlsMode.STRICT else ""


def _awaits_capture(server: Workload) -> bool:
    return server.enrolled and not server.captured and not server.host_network


def _capture_deps(world: World, servers: Iterable[Workload]) -> frozenset[str]:
    """What _clear_forbidden() looks at beyond the pods themselves."""
    namespaces = {server.namespace for server in servers if _awaits_capture(server)}
    return frozenset("policy:" + name for name in (*namespaces, world.mesh.root_namespace) if namespaces)


def _preference(service: Service, choices: tuple[Choice, ...], usable: list[Endpoint]) -> str:
    first = sum(choice.weight > 0 for choice in choices)
    text = f"{first} of {len(usable)} usable endpoints"
    if service.local_only:
        text += ", this node's only (internalTrafficPolicy: Local)"
    if service.distribution is not TrafficDistribution.ANY:
        text += f", the closest (trafficDistribution: {service.distribution.value})"
    return text
