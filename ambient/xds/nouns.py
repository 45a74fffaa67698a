"""What Istio's types have no place for, as Noun messages and back. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from ambient.model import mesh
from ambient.model.mesh import MtlsMode, OutboundMode, SameNode
from ambient.xds import names, policies
from ambient.xds.proto import noun_pb2 as pb

OUTBOUND: Mapping[OutboundMode | None, pb.Outbound] = {
    None: pb.INHERITED,
    OutboundMode.ALLOW_ANY: pb.ALLOW_ANY,
    OutboundMode.REGISTRY_ONLY: pb.REGISTRY_ONLY,
}
SAME_NODE: Mapping[SameNode | None, pb.SameNode] = {
    None: pb.SAME_NODE_INHERITED,
    SameNode.DIRECT: pb.SAME_NODE_DIRECT,
    SameNode.MTLS: pb.SAME_NODE_MTLS,
}
MODES: Mapping[MtlsMode | None, pb.MtlsMode] = {
    None: pb.UNSET,
    MtlsMode.STRICT: pb.STRICT,
    MtlsMode.PERMISSIVE: pb.PERMISSIVE,
    MtlsMode.DISABLE: pb.DISABLE,
}
PLAINTEXT: Mapping[bool | None, pb.Plaintext] = {
    None: pb.PLAINTEXT_INHERITED,
    False: pb.PLAINTEXT_ALLOWED,
    True: pb.PLAINTEXT_REFUSED,
}
_OUTBOUND = {value: key for key, value in OUTBOUND.items()}
_SAME_NODE = {value: key for key, value in SAME_NODE.items()}
_MODES = {value: key for key, value in MODES.items()}
_REQUIRE_MTLS = {value: key for key, value in PLAINTEXT.items()}


@dataclass(frozen=True, slots=True)
class Roots:
    """The certificates that are trusted at this moment."""

    pem: bytes


Beyond = (
    mesh.Node
    | mesh.Namespace
    | mesh.PeerAuthentication
    | mesh.AuthorizationPolicy
    | mesh.TrafficPolicy
    | mesh.MeshConfig
    | Roots
)


def name(noun: Beyond) -> str:
    match noun:
        case mesh.MeshConfig():
            return names.MESH
        case Roots():
            return names.ROOTS
        case mesh.Node() | mesh.Namespace():
            return names.of_noun(type(noun), noun.name)
    return names.of_noun(type(noun), noun.key)


def encode(noun: Beyond) -> pb.Noun:
    match noun:
        case mesh.Node():
            return pb.Noun(
                node=pb.Node(
                    name=noun.name,
                    addresses=[ip.packed for ip in noun.addresses],
                    region=noun.locality.region,
                    zone=noun.locality.zone,
                    pod_networks=map(str, noun.pod_networks),
                )
            )
        case mesh.Namespace():
            return pb.Noun(
                namespace=pb.Namespace(
                    name=noun.name,
                    labels=noun.labels,
                    enrolled=noun.enrolled,
                    outbound=OUTBOUND[noun.outbound],
                    require_mtls=noun.require_mtls,
                    same_node=SAME_NODE[noun.same_node],
                )
            )
        case mesh.PeerAuthentication():
            return pb.Noun(
                peer_authentication=pb.PeerAuthentication(
                    namespace=noun.namespace,
                    name=noun.name,
                    selector=noun.selector,
                    mode=MODES[noun.mode],
                    port_modes={port: MODES[mode] for port, mode in noun.port_modes.items()},
                    created=noun.created,
                )
            )
        case mesh.AuthorizationPolicy():
            return pb.Noun(authorization=policies.encode(noun, ""))
        case mesh.TrafficPolicy():
            return pb.Noun(traffic_policy=_of_traffic_policy(noun))
        case Roots():
            return pb.Noun(roots=pb.Roots(pem=noun.pem))
    return pb.Noun(
        mesh=pb.Mesh(
            trust_domain=noun.trust_domain,
            root_namespace=noun.root_namespace,
            outbound=OUTBOUND[noun.outbound],
            same_node=SAME_NODE[noun.same_node],
        )
    )


def decode(message: pb.Noun) -> Beyond:
    """Raises ValueError, in a sentence, for what cannot be understood."""
    match message.WhichOneof("noun"):
        case "node":
            node = message.node
            return mesh.Node(
                name=node.name,
                addresses=tuple(map(mesh.address, node.addresses)),
                pod_networks=tuple(map(ipaddress.ip_network, node.pod_networks)),
                locality=mesh.Locality(node.region, node.zone),
            )
        case "namespace":
            return _namespace(message.namespace)
        case "peer_authentication":
            return _peer_authentication(message.peer_authentication)
        case "traffic_policy":
            return _traffic_policy(message.traffic_policy)
        case "authorization" if policy := policies.decode(message.authorization):
            return policy
        case "mesh":
            outbound = _OUTBOUND.get(message.mesh.outbound)
            if outbound is None:
                raise ValueError(f"outbound mode {message.mesh.outbound} is unknown")
            direct = same_node(message.mesh.same_node) or SameNode.DIRECT
            return mesh.MeshConfig(message.mesh.trust_domain, message.mesh.root_namespace, outbound, direct)
        case "roots":
            return Roots(message.roots.pem)
    raise ValueError("it is of a kind that is unknown here")


def same_node(number: pb.SameNode) -> SameNode | None:
    """What a later version may mean besides is taken for what encrypts more."""
    return _SAME_NODE.get(number, SameNode.MTLS)


def _of_traffic_policy(noun: mesh.TrafficPolicy) -> pb.TrafficPolicy:
    return pb.TrafficPolicy(
        namespace=noun.namespace,
        name=noun.name,
        selector=noun.selector,
        outbound=OUTBOUND[noun.outbound],
        allowed=[pb.Destinations(networks=map(str, each.networks), ports=sorted(each.ports)) for each in noun.allowed],
        plaintext=PLAINTEXT[noun.require_mtls],
        created=noun.created,
    )


def _traffic_policy(message: pb.TrafficPolicy) -> mesh.TrafficPolicy:
    if message.outbound not in _OUTBOUND or message.plaintext not in _REQUIRE_MTLS:
        raise ValueError(f"outbound mode {message.outbound} or plaintext mode {message.plaintext} is unknown")
    return mesh.TrafficPolicy(
        namespace=message.namespace,
        name=message.name,
        selector=dict(message.selector),
        outbound=_OUTBOUND[message.outbound],
        allowed=tuple(
            mesh.Destinations(networks=tuple(map(ipaddress.ip_network, each.networks)), ports=frozenset(each.ports))
            for each in message.allowed
        ),
        require_mtls=_REQUIRE_MTLS[message.plaintext],
        created=message.created,
    )


def _namespace(message: pb.Namespace) -> mesh.Namespace:
    if message.outbound not in _OUTBOUND:
        raise ValueError(f"outbound mode {message.outbound} is unknown")
    return mesh.Namespace(
        name=message.name,
        labels=dict(message.labels),
        enrolled=message.enrolled,
        outbound=_OUTBOUND[message.outbound],
        require_mtls=message.require_mtls,
        same_node=same_node(message.same_node),
    )


def _peer_authentication(message: pb.PeerAuthentication) -> mesh.PeerAuthentication:
    ports = {port: _MODES.get(mode) for port, mode in message.port_modes.items()}
    known = {port: mode for port, mode in ports.items() if mode}
    if message.mode not in _MODES or len(known) != len(ports):
        raise ValueError(f"a mutual TLS mode is unknown: {message}")
    return mesh.PeerAuthentication(
        namespace=message.namespace,
        name=message.name,
        selector=dict(message.selector),
        mode=_MODES[message.mode],
        port_modes=known,
        created=message.created,
    )
