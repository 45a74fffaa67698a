"""Manifests and changes in as few words as a test needs."""

from __future__ import annotations

import itertools
from typing import Any

from ambient.lab import admission, cluster
from ambient.lab.cluster import Objects
from ambient.sources.documents import Document
from ambient.sources.errors import Place


def a_node(name: str = "node1") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def a_namespace(name: str = "shop", **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def a_pod(name: str = "web", *, command: list[str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "command": command or ["sleep", "infinity"], **spec.pop("container", {})}
    metadata = {"name": name, "namespace": spec.pop("namespace", "shop"), "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


def a_service(name: str = "web", *, port: int = 80, target: int | str = 8080, **spec: Any) -> dict[str, Any]:
    namespace = spec.pop("namespace", "shop")
    ports = [{"port": port, "targetPort": target}]
    body = {"selector": {"app": name}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": body}


def documents(*manifests: dict[str, Any]) -> list[Document]:
    return [Document(Place("test", number), body) for number, body in enumerate(manifests, 1)]


def applied(*manifests: dict[str, Any], to: Objects = cluster.INITIAL) -> Objects:
    """The objects after an apply; uids are uid-0, uid-1, ... Raises Refused."""
    uids = (f"uid-{number}" for number in itertools.count(len(to)))
    found = admission.judge(to, documents(*manifests), new_uid=lambda: next(uids))
    admission.refuse(found.errors)
    return found.objects


def with_status(objects: Objects, pod: str, *ips: str, ready: bool = True) -> Objects:
    """A pod of the namespace shop as it is reported to be."""
    key = cluster.target(f"pod/shop/{pod}")
    status = {
        "podIPs": [{"ip": ip} for ip in ips],
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    return {**objects, key: {**objects[key], "status": status}}
