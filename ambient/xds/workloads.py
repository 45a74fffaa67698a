"""Workloads and Services to Istio's Address messages and back. Pure; decides nothing about who may.

Encoding fills Istio's fields so that ztunnel does what our agent would, and adds details for what they cannot say.
Without details (istiod's messages) a workload gets made-up labels instead, one for each Service and policy it names,
which select by the same ones. No real label has that many slashes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from sys import intern

from google.protobuf import any_pb2

from ambient.model import mesh
from ambient.xds import names
from ambient.xds.proto import noun_pb2 as details
from ambient.xds.proto import workload_pb2 as pb

EXTENSION = "ambient.dev/details"
WORKLOAD_DETAILS = "type.googleapis.com/ambient.v1.WorkloadDetails"
SERVICE_DETAILS = "type.googleapis.com/ambient.v1.ServiceDetails"
DEFAULT_TRUST_DOMAIN = "cluster.local"
CANONICAL_NAME = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
CANONICAL_REVISION = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")

Scope = pb.LoadBalancing.Scope
PREFERENCE: Mapping[mesh.TrafficDistribution, tuple[pb.LoadBalancing.Scope, ...]] = {
    mesh.TrafficDistribution.SAME_ZONE: (Scope.NETWORK, Scope.REGION, Scope.ZONE),
    mesh.TrafficDistribution.SAME_NODE: (Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE, Scope.NODE),
}
DISTRIBUTION = {
    mesh.TrafficDistribution.ANY: details.Distribution.ANY,
    mesh.TrafficDistribution.SAME_ZONE: details.Distribution.SAME_ZONE,
    mesh.TrafficDistribution.SAME_NODE: details.Distribution.SAME_NODE,
}
_DISTRIBUTION = {value: key for key, value in DISTRIBUTION.items()}


def policy_label(name: str) -> str:
    """The made-up label of a workload that lists the policy "namespace/name"."""
    return intern(f"istio.security.Authorization/{name}")


def service_label(name: str) -> str:
    """The made-up label of a workload behind the Service "namespace/hostname"."""
    return intern(f"istio.workload.Service/{name}")


def encode_workload(
    workload: mesh.Workload, trust_domain: str, services: Iterable[mesh.Service], policies: Iterable[str]
) -> pb.Address:
    """services: those it is behind. policies: "namespace/name" of those with a selector that it must obey."""
    more = details.WorkloadDetails(
        pod_uid=workload.uid,
        labels=workload.labels,
        ports=workload.ports,
        enrolled=workload.enrolled,
        captured=workload.captured,
        draining=workload.draining,
        exclude_outbound_ports=sorted(workload.capture.exclude_outbound_ports),
        exclude_outbound_cidrs=map(str, workload.capture.exclude_outbound_cidrs),
        exclude_inbound_ports=sorted(workload.capture.exclude_inbound_ports),
    )
    message = pb.Workload(
        uid=names.of_workload(workload.key),
        name=workload.name,
        namespace=workload.namespace,
        addresses=[ip.packed for ip in workload.addresses],
        tunnel_protocol=pb.HBONE if workload.tunnelled else pb.NONE,
        trust_domain="" if trust_domain == DEFAULT_TRUST_DOMAIN else trust_domain,
        service_account=workload.service_account,
        node=workload.node,
        canonical_name=_first(workload.labels, CANONICAL_NAME) or workload.owner or workload.name,
        canonical_revision=_first(workload.labels, CANONICAL_REVISION) or "latest",
        workload_type=pb.POD if workload.owner in ("", workload.name) else pb.DEPLOYMENT,
        workload_name=workload.owner,
        authorization_policies=policies,
        status=pb.HEALTHY if workload.ready else pb.UNHEALTHY,
        services={names.of_service(service): pb.PortList(ports=_ports_at(service, workload)) for service in services},
        network_mode=pb.HOST_NETWORK if workload.host_network else pb.STANDARD,
        extensions=[_extension(WORKLOAD_DETAILS, more)],
    )
    if workload.locality != mesh.Locality():
        message.locality.region, message.locality.zone = workload.locality.region, workload.locality.zone
    return pb.Address(workload=message)


def _first(labels: Mapping[str, str], keys: Iterable[str]) -> str:
    return next((value for key in keys if (value := labels.get(key))), "")


def _ports_at(service: mesh.Service, workload: mesh.Workload) -> list[pb.Port]:
    """The Service's ports as this workload has them: a named one that it does not have is left out."""
    found = []
    for port in service.ports:
        target = workload.ports.get(port.target) if isinstance(port.target, str) else port.target
        if target is not None:
            found.append(pb.Port(service_port=port.port, target_port=target))
    return found


def decode_workload(message: pb.Workload) -> mesh.Workload:
    """Raises ValueError, in a sentence, for what cannot be understood."""
    if message.tunnel_protocol not in (pb.NONE, pb.HBONE):
        raise ValueError(f"tunnel protocol {message.tunnel_protocol} is not spoken here (0: none, 1: HBONE are)")
    namespace, name = _called(message.uid)
    raw = _details(message.extensions, WORKLOAD_DETAILS)
    more = details.WorkloadDetails.FromString(raw) if raw is not None else _made_up(message)
    return mesh.Workload(
        namespace=namespace,
        name=name,
        uid=more.pod_uid,
        node=intern(message.node),
        service_account=intern(message.service_account or "default"),
        addresses=tuple(map(mesh.address, message.addresses)),
        labels=_labels(more.labels),
        ports={intern(name): port for name, port in more.ports.items()},
        ready=message.status == pb.HEALTHY,
        draining=more.draining,
        enrolled=more.enrolled,
        captured=more.captured,
        host_network=message.network_mode == pb.HOST_NETWORK,
        locality=mesh.Locality(intern(message.locality.region), intern(message.locality.zone)),
        capture=_capture(more),
        owner=intern(message.workload_name),
    )


def _called(uid: str) -> tuple[str, str]:
    """Namespace and name: Istio's own fields for them may be empty."""
    ref = names.ref(names.ADDRESS, uid)
    if ref is None or ref[0] is not mesh.Workload:
        raise ValueError(f"its uid {uid!r} is not cluster/group/kind/namespace/name")
    namespace, _, name = ref[1].partition("/")
    return intern(namespace), name


def _made_up(message: pb.Workload) -> details.WorkloadDetails:
    """What details would say so that Services and policies decoded without details select this workload."""
    return details.WorkloadDetails(
        labels=dict.fromkeys(
            [*map(policy_label, message.authorization_policies), *map(service_label, message.services)], ""
        ),
        ports={
            _port_name(service, port.service_port): port.target_port
            for service, ports in message.services.items()
            for port in ports.ports
        },
        enrolled=message.tunnel_protocol == pb.HBONE,
        captured=True,
    )


def _port_name(service: str, port: int) -> str:
    return f"{service}:{port}"


def _labels(found: Mapping[str, str]) -> dict[str, str]:
    """Few keys and values, many pods: equal texts are one."""
    return {intern(key): intern(value) for key, value in found.items()}


def _capture(more: details.WorkloadDetails) -> mesh.CaptureSettings:
    if not (more.exclude_outbound_ports or more.exclude_outbound_cidrs or more.exclude_inbound_ports):
        return NOTHING_EXCLUDED
    return mesh.CaptureSettings(
        exclude_outbound_ports=frozenset(more.exclude_outbound_ports),
        exclude_outbound_cidrs=tuple(map(ipaddress.ip_network, more.exclude_outbound_cidrs)),
        exclude_inbound_ports=frozenset(more.exclude_inbound_ports),
    )


NOTHING_EXCLUDED = mesh.CaptureSettings()


def encode_service(service: mesh.Service) -> pb.Address:
    more = details.ServiceDetails(
        selector=service.selector,
        ports=[
            details.PortDetails(
                name=port.name,
                target=port.target if isinstance(port.target, str) else "",
                app_protocol=port.app_protocol,
            )
            for port in service.ports
        ],
        distribution=DISTRIBUTION[service.distribution],
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
        extensions=[_extension(SERVICE_DETAILS, more)],
    )
    return pb.Address(service=message)


def _load_balancing(service: mesh.Service) -> pb.LoadBalancing | None:
    health = pb.LoadBalancing.ALLOW_ALL if service.publish_not_ready else pb.LoadBalancing.ONLY_HEALTHY
    if service.local_only:
        return pb.LoadBalancing(routing_preference=[Scope.NODE], mode=pb.LoadBalancing.STRICT, health_policy=health)
    if scopes := PREFERENCE.get(service.distribution):
        return pb.LoadBalancing(routing_preference=scopes, mode=pb.LoadBalancing.FAILOVER, health_policy=health)
    return pb.LoadBalancing(health_policy=health) if service.publish_not_ready else None


def _families(vips: Iterable[mesh.IPAddress]) -> pb.IPFamilies:
    families = {ip.version for ip in vips}
    return {4: pb.IPV4_ONLY, 6: pb.IPV6_ONLY, 10: pb.DUAL}.get(sum(families), pb.AUTOMATIC)


def decode_service(message: pb.Service) -> mesh.Service:
    """Raises ValueError, in a sentence, for what cannot be understood."""
    balancing = message.load_balancing
    name = names.service_name(message.namespace, message.hostname)
    raw = _details(message.extensions, SERVICE_DETAILS)
    if raw is None:
        selector, distribution = _made_up_selector(message), _preferred(balancing)
        ports = tuple(_made_up_port(message, port) for port in message.ports)
    else:
        more = details.ServiceDetails.FromString(raw)
        if len(more.ports) != len(message.ports) or more.distribution not in _DISTRIBUTION:
            raise ValueError(f"its details do not fit it: {more}")
        selector, distribution = _labels(more.selector), _DISTRIBUTION[more.distribution]
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
        local_only=balancing.mode == pb.LoadBalancing.STRICT and Scope.NODE in balancing.routing_preference,
        publish_not_ready=balancing.health_policy == pb.LoadBalancing.ALLOW_ALL,
    )


def _made_up_selector(message: pb.Service) -> dict[str, str]:
    """None for a Service whose clients are to reach the address they dialled, not one of its workloads."""
    if message.load_balancing.mode == pb.LoadBalancing.PASSTHROUGH:
        return {}
    return {service_label(f"{message.namespace}/{message.hostname}"): ""}


def _made_up_port(message: pb.Service, port: pb.Port) -> mesh.ServicePort:
    """Each workload says itself which port it is there: by a name that both make up."""
    service = f"{message.namespace}/{message.hostname}"
    return mesh.ServicePort(name="", port=port.service_port, target=_port_name(service, port.service_port))


def _preferred(balancing: pb.LoadBalancing) -> mesh.TrafficDistribution:
    if balancing.mode != pb.LoadBalancing.FAILOVER:
        return mesh.TrafficDistribution.ANY
    if Scope.NODE in balancing.routing_preference:
        return mesh.TrafficDistribution.SAME_NODE
    return mesh.TrafficDistribution.SAME_ZONE if balancing.routing_preference else mesh.TrafficDistribution.ANY


def _extension(type_url: str, message: details.WorkloadDetails | details.ServiceDetails) -> pb.Extension:
    value = message.SerializeToString(deterministic=True)
    return pb.Extension(name=EXTENSION, config=any_pb2.Any(type_url=type_url, value=value))


def _details(extensions: Sequence[pb.Extension], type_url: str) -> bytes | None:
    return next((each.config.value for each in extensions if each.config.type_url == type_url), None)
