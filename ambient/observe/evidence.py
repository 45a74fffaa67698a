"""What one agent can testify about a namespace: facts, for `ambient verify`. Pure; what they prove is not judged here.

Of its own node's pods an agent says what kernel, engine and certificate store say; of the others only that they exist,
so that what all agents of a large cluster say together stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ambient.model import egress, policy, samenode
from ambient.model.mesh import IPAddress, MtlsMode, OutboundMode, Workload
from ambient.model.tables import endpoints_of
from ambient.model.world import World

Row = dict[str, object]
NOBODYS_PORT = 9  # discard: what is asked of a port that no app has
ANY_PORT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was looked at for one pod of the agent's own node."""

    state: str  # "captured", or why not
    certificate: Mapping[str, object] | None  # the store's row
    knocks: Sequence[Mapping[str, object]] = ()  # what plaintext connections met, one to each address; none: not tried
    # Connections outside tunnels: inbound, own port, the other end's address and port. None: nobody could look.
    clear: tuple[tuple[bool, int, IPAddress, int], ...] | None = ()
    direct: frozenset[tuple[bool, int, IPAddress, int]] = frozenset()  # of these, those the kernel knows both ends of


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    node: str
    host: frozenset[IPAddress] = frozenset()  # the node's own addresses, gateways of pod networks included
    blockers: Iterable[str] = ()  # what the agent is not ready for
    errors: Iterable[str] = ()  # of the configuration: while there are any, an older one is in force
    paths: Iterable[Row] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)  # by workload key, of every pod of its node


def evidence(world: World, namespace: str, agent: Witness) -> Row:
    """The namespace's pods on the agent's node, sorted; of those elsewhere only that they are there, by node."""
    everywhere = world.workloads_in(namespace)
    own = [pod for pod in everywhere if pod.node == agent.node]
    elsewhere: dict[str, list[str]] = {}
    for pod in everywhere:
        if pod.node != agent.node:
            elsewhere.setdefault(pod.node, []).append(pod.key)
    return {
        "node": agent.node,
        "namespace": namespace,
        "known": namespace in world.namespaces or bool(everywhere),
        "egress": "allowed" if any(_may_leave(world, pod) for pod in own) else "refused",
        "blockers": list(agent.blockers),
        "errors": list(agent.errors),
        "pods": [_pod(world, pod, agent.seen[pod.key], agent.host) for pod in own],
        "elsewhere": elsewhere,
        "paths": list(agent.paths),
    }


def _may_leave(world: World, pod: Workload) -> bool:
    """May it send in the clear anywhere?"""
    outbound = egress.outbound(world, pod)
    return not egress.requires_mtls(world, pod) or outbound.mode is OutboundMode.ALLOW_ANY or bool(outbound.allowed)


def _pod(world: World, pod: Workload, seen: Seen, host: frozenset[IPAddress]) -> Row:
    capture = pod.capture
    outbound = [*map(str, sorted(capture.exclude_outbound_ports)), *map(str, capture.exclude_outbound_cidrs)]
    return {
        "pod": pod.key,
        "node": pod.node,
        "addresses": [str(ip) for ip in pod.addresses],
        "enrolled": pod.enrolled,
        "host_network": pod.host_network,
        "identity": str(pod.identity(world.mesh.trust_domain)) if pod.enrolled else "",
        "modes": modes(world, pod),
        "exclude_inbound": sorted(capture.exclude_inbound_ports),
        "exclude_outbound": outbound,
        "probe_ports": sorted(pod.probe_ports),
        "state": seen.state,
        "certificate": dict(seen.certificate) if seen.certificate else None,
        "knocks": [dict(each) for each in seen.knocks],
        "same_node": samenode.wish(world, pod)[0].value,
        "clear": None
        if seen.clear is None
        else [_clear(world, pod, host, *each) | _vouched(each in seen.direct) for each in seen.clear],
    }


def modes(world: World, pod: Workload) -> list[Row]:
    """The mTLS mode of the pod (port 0: every port not named), then of the ports that have their own."""
    own = policy.workload_peer_authentication(world, pod)
    ports = [ANY_PORT, *sorted(own.port_modes if own else ())]
    rows: list[Row] = []
    for port in ports:
        mode, said_by = policy.mtls_mode(world, pod, port)
        rows.append({"port": port, "mode": mode.value, "said_by": said_by})
    return rows


def port_to_try(world: World, pod: Workload) -> int | None:
    """Where plaintext is to be refused, and a connection in the clear can show it; None where it may be let in.

    A port of the app if there is one on which the pod's node is nobody special, else one that no app has.
    """
    if not pod.enrolled or pod.host_network or not pod.addresses:
        return None
    special = pod.probe_ports | pod.capture.exclude_inbound_ports
    for port in (*sorted(_app_ports(world, pod)), NOBODYS_PORT):
        if port not in special and policy.mtls_mode(world, pod, port)[0] is MtlsMode.STRICT:
            return port
    return None


def _app_ports(world: World, pod: Workload) -> set[int]:
    ports = set(pod.ports.values())
    for service in world.services_of(pod):
        ports.update(*(endpoint.ports.values() for endpoint in endpoints_of(service, pod)))
    return ports


def _vouched(known: bool) -> Row:
    return {"kind": "direct"} if known else {}


def _clear(
    world: World, pod: Workload, host: frozenset[IPAddress], inbound: bool, port: int, ip: IPAddress, remote_port: int
) -> Row:
    """`kind`: "mesh" (a tunnel is possible), "probe" (of the pod's node), or "outside"; or else "direct"."""
    inbound = inbound or port in _app_ports(world, pod)  # of an app that listens no more: nobody dials from such a port
    other = world.workload_at(ip)
    node = world.node_at(ip)
    own_node = ip in host or (node is not None and node.name == pod.node)
    kind = "mesh" if other is not None and other.tunnelled else "outside"
    if inbound and own_node and port in pod.probe_ports:
        kind = "probe"
    who = other.key if other else f"Node {node.name}" if node else ""
    at = f"{ip}:{remote_port}" if ip.version == 4 else f"[{ip}]:{remote_port}"
    return {
        "direction": "in" if inbound else "out",
        "port": port if inbound else remote_port,
        "peer": f"{who} {at}" if who else at,
        "kind": kind,
    }
