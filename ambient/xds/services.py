"""Services to Istio's Address messages and back. Pure; which pods are behind one is not known here.

ztunnel reads Istio's fields alone, so they make it do what our agent does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import intern

from ambient.model import mesh
from ambient.xds import details, names
from ambient.xds.proto import noun_pb2 as noun
from ambient.xds.proto import workload_pb2 as pb

Scope = pb.LoadBalancing.Scope
PREFERENCE: Mapping[mesh.TrafficDistribution, tuple[pb.LoadBalancing.Scope, ...]] = {
    mesh.TrafficDistribution.SAME_ZONE: (Scope.NETWORK, Scope.REGION, Scope.ZONE),
    mesh.TrafficDistribution.SAME_NODE: (Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE, Scope.NODE),
}
DISTRIBUTION = {
    mesh.TrafficDistribution.ANY: noun.Distribution.ANY,
    mesh.TrafficDistribution.SAME_ZONE: noun.Distribution.SAME_ZONE,
    mesh.TrafficDistribution.SAME_NODE: noun.Distribution.SAME_NODE,
}
_DISTRIBUTION = {value: key for key, value in DISTRIBUTION.items()}


def encode(service: mesh.Service) -> pb.Address:
    more = noun.ServiceDetails(
        selector=service.selector,
        ports=[
            noun.PortDetails(
                name=port.name,
                target=port.target if isinstance(port.target, str) else "",
                app_protocol=port.app_protocol,
            )
            for port in service.ports
        ],
        distribution=DISTRIBUTION[service.distribution],
        local_only=service.local_only,
    )
    message = pb.Service(
        name=service.name,
        namespace=service.namespace,
        hostname=service.hostname,
        addresses=[pb.NetworkAddress(address=ip.packed) for ip in service.vips],
        ports=[
            pb.Port(service_port=port.port, target_port=0 if isinstance(port.target, str) else port.target)
            for port in service.ports
        ],
        load_balancing=_load_balancing(service),
        ip_families=_families(service.vips),
        canonical=True,
        extensions=[pb.Extension(name=details.NAME, config=details.pack(more))],
    )
    return pb.Address(service=message)


def _load_balancing(service: mesh.Service) -> pb.LoadBalancing | None:
    """Without a selector its endpoints are not the mesh's: whoever dials it is to get what it dialled."""
    health = pb.LoadBalancing.ALLOW_ALL if service.publish_not_ready else pb.LoadBalancing.ONLY_HEALTHY
    if not service.selector:
        return pb.LoadBalancing(mode=pb.LoadBalancing.PASSTHROUGH, health_policy=health)
    if service.local_only:
        return pb.LoadBalancing(routing_preference=[Scope.NODE], mode=pb.LoadBalancing.STRICT, health_policy=health)
    if scopes := PREFERENCE.get(service.distribution):
        return pb.LoadBalancing(routing_preference=scopes, mode=pb.LoadBalancing.FAILOVER, health_policy=health)
    return pb.LoadBalancing(health_policy=health) if service.publish_not_ready else None


def _families(vips: Iterable[mesh.IPAddress]) -> pb.IPFamilies:
    families = {ip.version for ip in vips}
    return {4: pb.IPV4_ONLY, 6: pb.IPV6_ONLY, 10: pb.DUAL}.get(sum(families), pb.AUTOMATIC)


def decode(message: pb.Service) -> mesh.Service:
    """Raises ValueError, in a sentence, for what cannot be understood."""
    balancing = message.load_balancing
    name = names.service_name(message.namespace, message.hostname)
    raw = details.find(message.extensions, noun.ServiceDetails)
    if raw is None:
        selector, distribution = _made_up_selector(message), _preferred(balancing)
        local_only = balancing.mode == pb.LoadBalancing.STRICT and Scope.NODE in balancing.routing_preference
        ports = tuple(_made_up_port(message, port) for port in message.ports)
    else:
        more = noun.ServiceDetails.FromString(raw)
        if len(more.ports) != len(message.ports) or more.distribution not in _DISTRIBUTION:
            raise ValueError(f"its details do not fit it: {more}")
        selector, distribution = details.labels(more.selector), _DISTRIBUTION[more.distribution]
        local_only = more.local_only
        ports = tuple(
            mesh.ServicePort(
                name=detail.name,
                port=port.service_port,
                target=detail.target or port.target_port,
                app_protocol=detail.app_protocol,
            )
            for port, detail in zip(message.ports, more.ports, strict=True)
        )
    return mesh.Service(
        namespace=intern(message.namespace),
        name=name,
        vips=tuple(mesh.address(each.address) for each in message.addresses),
        ports=ports,
        selector=selector,
        distribution=distribution,
        local_only=local_only,
        publish_not_ready=balancing.health_policy == pb.LoadBalancing.ALLOW_ALL,
    )


def _made_up_selector(message: pb.Service) -> dict[str, str]:
    """None for a Service whose clients are to reach the address they dialled, not one of its workloads."""
    if message.load_balancing.mode == pb.LoadBalancing.PASSTHROUGH:
        return {}
    return {details.service_label(f"{message.namespace}/{message.hostname}"): ""}


def _made_up_port(message: pb.Service, port: pb.Port) -> mesh.ServicePort:
    """Each workload says itself which port it is there: by a name that both make up."""
    service = f"{message.namespace}/{message.hostname}"
    return mesh.ServicePort(name="", port=port.service_port, target=details.port_name(service, port.service_port))


def _preferred(balancing: pb.LoadBalancing) -> mesh.TrafficDistribution:
    if balancing.mode != pb.LoadBalancing.FAILOVER:
        return mesh.TrafficDistribution.ANY
    if Scope.NODE in balancing.routing_preference:
        return mesh.TrafficDistribution.SAME_NODE
    return mesh.TrafficDistribution.SAME_ZONE if balancing.routing_preference else mesh.TrafficDistribution.ANY
