"""Workloads to Istio's Address messages and back. Pure; which Services and policies one lists is the caller's to say.

ztunnel reads Istio's fields alone, so they make it do what our agent does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from sys import intern

from ambient.model import mesh
from ambient.xds import details, names, nouns
from ambient.xds.proto import noun_pb2 as noun
from ambient.xds.proto import workload_pb2 as pb

DEFAULT_TRUST_DOMAIN = "cluster.local"
CANONICAL_NAME = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
CANONICAL_REVISION = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")


def encode(
    workload: mesh.Workload, trust_domain: str, services: Iterable[mesh.Service], policies: Iterable[str]
) -> pb.Address:
    """services: those it is behind. policies: "namespace/name" of those with a selector that it must obey."""
    more = noun.WorkloadDetails(
        pod_uid=workload.uid,
        labels=workload.labels,
        ports=workload.ports,
        enrolled=workload.enrolled,
        captured=workload.captured,
        draining=workload.draining,
        probe_ports=sorted(workload.probe_ports),
        exclude_outbound_ports=sorted(workload.capture.exclude_outbound_ports),
        exclude_outbound_cidrs=map(str, workload.capture.exclude_outbound_cidrs),
        exclude_inbound_ports=sorted(workload.capture.exclude_inbound_ports),
        same_node=nouns.SAME_NODE[workload.same_node],
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
        extensions=[pb.Extension(name=details.NAME, config=details.pack(more))],
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


def decode(message: pb.Workload) -> mesh.Workload:
    """Raises ValueError, in a sentence, for what cannot be understood."""
    if message.tunnel_protocol not in (pb.NONE, pb.HBONE):
        raise ValueError(f"tunnel protocol {message.tunnel_protocol} is not spoken here (0: none, 1: HBONE are)")
    namespace, name = _called(message.uid)
    raw = details.find(message.extensions, noun.WorkloadDetails)
    more = noun.WorkloadDetails.FromString(raw) if raw is not None else _made_up(message)
    return mesh.Workload(
        namespace=namespace,
        name=name,
        uid=more.pod_uid,
        node=intern(message.node),
        service_account=intern(message.service_account or "default"),
        addresses=tuple(map(mesh.address, message.addresses)),
        labels=details.labels(more.labels),
        ports={intern(name): port for name, port in more.ports.items()},
        ready=message.status == pb.HEALTHY,
        draining=more.draining,
        probe_ports=frozenset(more.probe_ports),
        enrolled=more.enrolled,
        captured=more.captured,
        host_network=message.network_mode == pb.HOST_NETWORK,
        locality=mesh.Locality(intern(message.locality.region), intern(message.locality.zone)),
        capture=_capture(more),
        same_node=nouns.same_node(more.same_node),
        owner=intern(message.workload_name),
    )


def _called(uid: str) -> tuple[str, str]:
    """Namespace and name: Istio's own fields for them may be empty."""
    ref = names.ref(names.ADDRESS, uid)
    if ref is None or ref[0] is not mesh.Workload:
        raise ValueError(f"its uid {uid!r} is not cluster/group/kind/namespace/name")
    namespace, _, name = ref[1].partition("/")
    return intern(namespace), name


def _made_up(message: pb.Workload) -> noun.WorkloadDetails:
    """What details would say so that Services and policies decoded without details select this workload."""
    return noun.WorkloadDetails(
        labels={
            **{details.policy_label(name): "" for name in message.authorization_policies},
            **{details.service_label(name): "" for name in message.services},
        },
        ports={
            details.port_name(service, port.service_port): port.target_port
            for service, ports in message.services.items()
            for port in ports.ports
        },
        enrolled=message.tunnel_protocol == pb.HBONE,
        captured=True,
    )


def _capture(more: noun.WorkloadDetails) -> mesh.CaptureSettings:
    if not (more.exclude_outbound_ports or more.exclude_outbound_cidrs or more.exclude_inbound_ports):
        return NOTHING_EXCLUDED
    return mesh.CaptureSettings(
        exclude_outbound_ports=frozenset(more.exclude_outbound_ports),
        exclude_outbound_cidrs=tuple(map(ipaddress.ip_network, more.exclude_outbound_cidrs)),
        exclude_inbound_ports=frozenset(more.exclude_inbound_ports),
    )


NOTHING_EXCLUDED = mesh.CaptureSettings()
