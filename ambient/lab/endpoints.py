"""Which pods stand behind a service, read from the manifests as kube-proxy and the DNS of a cluster would. Pure.

Deliberately not the mesh's own model: pods outside the mesh must not depend on it, and a fault there would hide from a
lab that shared it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ambient.lab.cluster import Objects, vips
from ambient.lab.manifests import Key
from ambient.model import mesh


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one service address and where it leads: sorted (address, port) pairs of the same family."""

    vip: mesh.IPAddress
    protocol: str  # "tcp" or "udp"
    port: int
    backends: tuple[tuple[mesh.IPAddress, int], ...]


def pod_ips(pod: Mapping[str, Any]) -> tuple[mesh.IPAddress, ...]:
    return tuple(mesh.address(entry["ip"]) for entry in pod.get("status", {}).get("podIPs", ()))


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)


def backing(objects: Objects, key: Key) -> Iterator[Mapping[str, Any]]:
    """The pods a service leads to now, in name order."""
    spec = objects[key]["spec"]
    selector = spec.get("selector") or {}
    for other in sorted(objects):
        if other.kind != "Pod" or other.namespace != key.namespace or not selector:
            continue
        pod = objects[other]
        labels = pod["metadata"].get("labels", {})
        if selector.items() <= labels.items() and (spec.get("publishNotReadyAddresses") or is_ready(pod)):
            yield pod


def service_ports(objects: Objects, node: str) -> Iterator[ServicePort]:
    """Every port of every service that has an address, as it is seen on one node."""
    for key in sorted(objects):
        if key.kind != "Service":
            continue
        pods = list(backing(objects, key))
        if objects[key]["spec"].get("internalTrafficPolicy") == "Local":
            pods = [pod for pod in pods if pod["spec"]["nodeName"] == node]
        for vip in vips(objects[key]):
            for port in objects[key]["spec"].get("ports") or ():
                yield ServicePort(
                    vip,
                    str(port.get("protocol", "TCP")).lower(),
                    port["port"],
                    tuple(
                        (ip, number)
                        for pod in pods
                        for ip in pod_ips(pod)
                        if ip.version == vip.version and (number := target_port(pod, port)) is not None
                    ),
                )


def target_port(pod: Mapping[str, Any], port: Mapping[str, Any]) -> int | None:
    """The number a service port leads to in this pod; None when the pod has no port of that name."""
    wanted = port.get("targetPort", port["port"])
    if isinstance(wanted, int):
        return wanted
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports") or ():
            if declared.get("name") == wanted:
                return int(declared["containerPort"])
    return None
