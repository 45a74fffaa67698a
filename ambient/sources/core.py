"""Kubernetes' own kinds to the mesh's nouns: Namespace, Node, Pod, Service. Pure; other fields are not ours.

What a Pod inherits from its Namespace and Node is not known here: see ambient.sources.inventory.

A setting of ours that cannot be read is a problem, and counts as what leaves less in the clear: who goes on in spite of
it (a cluster does not stop for one bad label) is on the safe side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ambient.model import mesh
from ambient.sources import probes
from ambient.sources.reading import Spot, network

T = TypeVar("T")
# What people write on objects for the mesh; settings.py says of what looks like it that nobody reads it.
MODE, ISTIO_MODE = "ambient.dev/mode", "istio.io/dataplane-mode"
UNKNOWN, REQUIRE_MTLS = "ambient.dev/outbound", "ambient.dev/require-mtls"
SAME_NODE = "ambient.dev/same-node"
CAPTURED = "ambient.dev/captured"
OUTBOUND_PORTS = "ambient.dev/exclude-outbound-ports"
OUTBOUND_CIDRS = "ambient.dev/exclude-outbound-cidrs"
INBOUND_PORTS = "ambient.dev/exclude-inbound-ports"
ENROL = {"enabled": True, "disabled": False}
OUTBOUND = {mode.value: mode for mode in mesh.OutboundMode}
SAME_NODE_MODES = {mode.value: mode for mode in mesh.SameNode}
DISTRIBUTION = {
    "PreferClose": mesh.TrafficDistribution.SAME_ZONE,
    "PreferSameZone": mesh.TrafficDistribution.SAME_ZONE,
    "PreferSameNode": mesh.TrafficDistribution.SAME_NODE,
}
ISTIO_DISTRIBUTION = {**DISTRIBUTION, "Any": mesh.TrafficDistribution.ANY}
LISTS = {
    OUTBOUND_PORTS: "port numbers separated by commas",
    OUTBOUND_CIDRS: "IP addresses or CIDR blocks separated by commas",
    INBOUND_PORTS: "port numbers separated by commas",
}
# The API server's picture of a static pod has a UID of its own; this annotation has the one that kubelet and the
# container runtime know it by (kubelet's pkg/kubelet/types).
MIRROR = "kubernetes.io/config.mirror"
CRON_JOB = re.compile(r"(.+)-\d{8,10}")  # a CronJob's Jobs are named after it and their time in minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A Pod by itself. `workload.enrolled`, `.captured` and `.locality` are not filled in."""

    workload: mesh.Workload
    wants: bool | None  # its own label; None: what its Namespace says
    sidecar: bool  # Istio's sidecar is in it
    captured: bool = False  # it says so

    @property
    def key(self) -> str:
        return self.workload.key


def namespace(doc: Spot) -> mesh.Namespace:
    labels = doc.at("metadata", "labels")
    return mesh.Namespace(
        name=doc.at("metadata", "name").text(),
        labels=labels.labels(),
        enrolled=enrolment(labels) or False,
        outbound=_setting(doc, UNKNOWN).one_of(OUTBOUND, None, closed=mesh.OutboundMode.REGISTRY_ONLY),
        require_mtls=_setting(doc, REQUIRE_MTLS).one_of({"true": True, "false": False}, False, closed=True),
        same_node=_same_node(doc),
    )


def _same_node(doc: Spot) -> mesh.SameNode | None:
    return _setting(doc, SAME_NODE).one_of(SAME_NODE_MODES, None, closed=mesh.SameNode.MTLS)


def _setting(doc: Spot, key: str) -> Spot:
    """An annotation, or a label of the same name."""
    annotation = doc.at("metadata", "annotations", key)
    return annotation if annotation else doc.at("metadata", "labels", key)


def enrolment(labels: Spot) -> bool | None:
    """What the labels of a Pod or Namespace ask for; ours goes before Istio's."""
    ours = labels.mapping().get(MODE)
    if ours:
        return ours.one_of(ENROL, None, closed=True)
    istio = labels.get(ISTIO_MODE).value
    return {"ambient": True, "none": False}.get(istio) if isinstance(istio, str) else None


def node(doc: Spot) -> mesh.Node:
    labels = doc.at("metadata", "labels").labels()
    addresses = [
        entry.get("address").address()
        for entry in doc.at("status", "addresses").items()
        if entry.mapping().get("type").text() in ("InternalIP", "ExternalIP")
    ]
    blocks = [block.network() for block in doc.at("spec", "podCIDRs").items()]
    return mesh.Node(
        name=doc.at("metadata", "name").text(),
        addresses=tuple(dict.fromkeys(ip for ip in addresses if ip)),
        pod_networks=tuple(dict.fromkeys(block for block in blocks if block)),
        locality=mesh.Locality(
            region=labels.get("topology.kubernetes.io/region", ""), zone=labels.get("topology.kubernetes.io/zone", "")
        ),
    )


def pod(doc: Spot) -> Pod:
    metadata, spec, status = doc.get("metadata"), doc.get("spec").mapping(), doc.get("status").mapping()
    annotations = metadata.get("annotations")
    finished = status.get("phase").text() in ("Succeeded", "Failed")  # its address may be another pod's by now
    leaving = bool(metadata.get("deletionTimestamp"))
    host_network = spec.get("hostNetwork").flag()
    serving = not finished and _is_ready(status)
    containers = _serving(spec)
    return Pod(
        workload=mesh.Workload(
            namespace=metadata.get("namespace").text("default"),
            name=metadata.get("name").text(),
            uid=annotations.mapping().get(MIRROR).text() or metadata.get("uid").text(),
            node=spec.get("nodeName").text(),
            service_account=spec.get("serviceAccountName").text() or "default",
            addresses=() if finished else _addresses(status),
            labels=metadata.get("labels").labels(),
            ports=_named_ports(containers),
            probe_ports=probes.ports(containers),
            ready=serving and not leaving,
            draining=serving and leaving,
            host_network=host_network,
            capture=_capture(annotations),
            same_node=_same_node(doc),
            owner=_owner(metadata),
        ),
        wants=enrolment(metadata.get("labels")),
        sidecar=bool(annotations.mapping().get("sidecar.istio.io/status")),
        captured=annotations.get(CAPTURED).value == "true",
    )


def _addresses(status: Spot) -> tuple[mesh.IPAddress, ...]:
    several = [entry.mapping().get("ip") for entry in status.get("podIPs").items()]
    one = status.get("podIP")
    found = [spot.address() for spot in several or ([one] if one else []) if spot.value != ""]
    return tuple(dict.fromkeys(ip for ip in found if ip))


def _is_ready(status: Spot) -> bool:
    return any(
        condition.mapping().get("type").value == "Ready" and condition.get("status").value == "True"
        for condition in status.get("conditions").items()
    )


def _serving(spec: Spot) -> list[Spot]:
    """The containers that run as long as the pod. An init container that stays (restartPolicy: Always) is like any."""
    staying = [c for c in spec.get("initContainers").items() if c.mapping().get("restartPolicy").value == "Always"]
    return [*spec.get("containers").items(), *staying]


def _named_ports(containers: list[Spot]) -> Mapping[str, int]:
    """TCP ports by name."""
    found: dict[str, int] = {}
    for container in containers:
        for entry in container.mapping().get("ports").items():
            name = entry.mapping().get("name").text()
            if name and entry.get("protocol").text("TCP") == "TCP":
                port = entry.get("containerPort").port()
                if port:
                    found.setdefault(name, port)
    return found


def _owner(metadata: Spot) -> str:
    """The Deployment, StatefulSet, ... that made the pod; its own name if nothing did."""
    for reference in metadata.get("ownerReferences").items():
        if not reference.mapping().get("controller").flag():
            continue
        kind, name = reference.get("kind").text(), reference.get("name").text()
        if kind == "ReplicaSet":
            return name.rpartition("-")[0] or name
        if kind == "Job" and (cron := CRON_JOB.fullmatch(name)):
            return cron[1]
        return name
    return metadata.get("name").text()


def _capture(annotations: Spot) -> mesh.CaptureSettings:
    return mesh.CaptureSettings(
        exclude_outbound_ports=frozenset(_listed(annotations, OUTBOUND_PORTS, _port)),
        exclude_outbound_cidrs=tuple(_listed(annotations, OUTBOUND_CIDRS, network)),
        exclude_inbound_ports=frozenset(_listed(annotations, INBOUND_PORTS, _port)),
    )


def _listed(annotations: Spot, key: str, parse: Callable[[str], T]) -> list[T]:
    """A comma-separated annotation. One mistake in it, and it excludes nothing: who knows what the rest was to mean."""
    spot = annotations.get(key)
    found: list[T] = []
    before = len(spot.problems)
    for part in spot.text().split(","):
        if part := part.strip():
            try:
                found.append(parse(part))
            except ValueError:
                spot.wrong(LISTS[key], repr(part))
    return found if len(spot.problems) == before else []


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise ValueError(text)
    return port


def service(doc: Spot) -> mesh.Service:
    """An ExternalName Service has neither addresses nor endpoints: it becomes one without VIP, ports and selector."""
    metadata, spec = doc.get("metadata"), doc.get("spec").mapping()
    external = spec.get("type").text() == "ExternalName"
    several = list(spec.get("clusterIPs").items())
    given = several or ([spec.get("clusterIP")] if spec.get("clusterIP") else [])
    vips = [] if external else [spot.address() for spot in given if spot.value not in ("", "None")]
    policy = spec.get("internalTrafficPolicy").one_of({"Cluster": False, "Local": True}, False)
    return mesh.Service(
        namespace=metadata.get("namespace").text("default"),
        name=metadata.get("name").text(),
        vips=tuple(dict.fromkeys(ip for ip in vips if ip)),
        ports=() if external else tuple(_service_ports(spec)),
        selector={} if external else spec.get("selector").labels(),
        distribution=_distribution(metadata, spec),
        local_only=policy,
        publish_not_ready=spec.get("publishNotReadyAddresses").flag(),
    )


def _service_ports(spec: Spot) -> Iterator[mesh.ServicePort]:
    """The TCP ones: others are not the mesh's."""
    for entry in spec.get("ports").items():
        if entry.mapping().get("protocol").text("TCP") != "TCP":
            continue
        number, target = entry.get("port").port(), entry.get("targetPort")
        if number:
            name = isinstance(target.value, str) and target.value
            yield mesh.ServicePort(
                name=entry.get("name").text(),
                port=number,
                target=name or (target.port() if target else None) or number,
                app_protocol=entry.get("appProtocol").text(),
            )


def _distribution(metadata: Spot, spec: Spot) -> mesh.TrafficDistribution:
    """The field goes before Istio's annotation."""
    field = spec.get("trafficDistribution")
    if field:
        return field.one_of(DISTRIBUTION, mesh.TrafficDistribution.ANY)
    annotation = metadata.at("annotations", "networking.istio.io/traffic-distribution")
    return annotation.one_of(ISTIO_DISTRIBUTION, mesh.TrafficDistribution.ANY)
