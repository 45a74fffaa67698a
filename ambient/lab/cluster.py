"""The objects of the cluster and what changing them means, as an API server would say. Pure: a change makes a new one.

Kept across an apply, as Kubernetes keeps it: uid, node, service addresses, status, and labels the manifest does not
name (`kubectl label` and `kubectl apply` live together this way; take a label away with `label KEY-`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ambient.lab import addressing
from ambient.lab.errors import Refused
from ambient.lab.manifests import CLUSTER_SCOPED, Document, Key, check, keyed
from ambient.model import mesh

Objects = Mapping[Key, dict[str, Any]]
# There from the start, as in a cluster into which a mesh was installed.
INITIAL: Objects = MappingProxyType(
    {
        Key("Namespace", "", name): {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        }
        for name in ("default", "kube-system", "ambient-system")
    }
)


def applied(objects: Objects, documents: Iterable[Document], *, new_uid: Callable[[], str]) -> Objects:
    """The objects after an apply: merged, defaulted, scheduled, with addresses. Raises Refused."""
    result = dict(objects)
    given = keyed(documents)
    for key, document in given.items():
        check(document)
        result[key] = _merged(key, document, objects.get(key), new_uid)
    for key, document in given.items():
        if key.namespace and Key("Namespace", "", key.namespace) not in result:
            raise Refused(f"{document.where}: namespace {key.namespace!r} does not exist: add a Namespace manifest")
        if key.kind == "Pod":
            _schedule(key, document, result)
        elif key.kind == "Service":
            _give_addresses(key, document, result)
    return result


def deleted(objects: Objects, keys: Iterable[Key]) -> Objects:
    """The objects after a delete: a namespace takes what is in it along, a node its pods. Raises Refused."""
    gone = set(keys)
    for key in gone:
        if key not in objects:
            raise Refused(f"{key} does not exist")
        if key in INITIAL:
            raise Refused(f"{key} belongs to every cluster")
    nodes = {key.name for key in gone if key.kind == "Node"}
    namespaces = {key.name for key in gone if key.kind == "Namespace"}
    return {
        key: body
        for key, body in objects.items()
        if key not in gone
        and key.namespace not in namespaces
        and not (key.kind == "Pod" and body["spec"]["nodeName"] in nodes)
    }


def target(text: str) -> Key:
    """ns/NAME, node/NAME or pod/NAMESPACE/NAME, as `label` takes it."""
    match text.split("/"):
        case ["ns" | "namespace", name]:
            return Key("Namespace", "", name)
        case ["node", name]:
            return Key("Node", "", name)
        case [("pod" | "service") as kind, namespace, name]:
            return Key(kind.capitalize(), namespace, name)
    raise Refused(f"{text!r}: expected ns/NAME, node/NAME, pod/NAMESPACE/NAME or service/NAMESPACE/NAME")


def labelled(objects: Objects, key: Key, changes: Iterable[str]) -> Objects:
    """The objects after `label`: each change is KEY=VALUE or KEY-. Raises Refused."""
    if key not in objects:
        raise Refused(f"{key} does not exist")
    body = copy.deepcopy(objects[key])
    labels = body["metadata"].setdefault("labels", {})
    for change in changes:
        name, equals, value = change.partition("=")
        if equals and name:
            labels[name] = value
        elif change.endswith("-") and len(change) > 1:
            labels.pop(change[:-1], None)
        else:
            raise Refused(f"label {change!r}: expected KEY=VALUE, or KEY- to take it away")
    return {**objects, key: body}


def _merged(key: Key, document: Document, old: Mapping[str, Any] | None, new_uid: Callable[[], str]) -> dict[str, Any]:
    body = copy.deepcopy(document.body)
    metadata = body["metadata"]
    if key.kind not in CLUSTER_SCOPED:
        metadata["namespace"] = key.namespace
    metadata["labels"] = dict(metadata.get("labels") or {})
    body.pop("status", None)
    if old is None:
        if key.kind == "Namespace":
            metadata["labels"].setdefault("kubernetes.io/metadata.name", key.name)
        metadata["uid"] = new_uid()
        return body
    metadata["uid"] = old["metadata"].get("uid", "") or new_uid()
    metadata["labels"] = {**old["metadata"].get("labels", {}), **metadata["labels"]}
    if "status" in old:
        body["status"] = old["status"]
    if key.kind == "Pod":
        body["spec"].setdefault("nodeName", old["spec"]["nodeName"])
        if body["spec"] != old["spec"]:
            raise Refused(
                f"{document.where}: {key} is running: only labels and annotations can change; delete it first"
            )
    if key.kind == "Service":
        for field in ("clusterIP", "clusterIPs", "ipFamilies"):
            if field in old["spec"]:
                body["spec"].setdefault(field, old["spec"][field])
    return body


def _schedule(key: Key, document: Document, objects: dict[Key, dict[str, Any]]) -> None:
    spec = objects[key]["spec"]
    nodes = sorted(other.name for other in objects if other.kind == "Node")
    if "nodeName" not in spec:
        if not nodes:
            raise Refused(f"{document.where}: there is no node for {key}: add a Node manifest")
        load = [body["spec"].get("nodeName") for other, body in objects.items() if other.kind == "Pod"]
        spec["nodeName"] = min(nodes, key=lambda node: (load.count(node), node))
    elif spec["nodeName"] not in nodes:
        known = ", ".join(nodes) or "none"
        raise Refused(f"{document.where}: spec.nodeName: expected a node ({known}), found {spec['nodeName']!r}")


def _give_addresses(key: Key, document: Document, objects: dict[Key, dict[str, Any]]) -> None:
    spec = objects[key]["spec"]
    if spec.get("clusterIP") == "None":
        return
    taken = {ip for other in objects if other.kind == "Service" and other != key for ip in vips(objects[other])}
    given = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    addresses: list[mesh.IPAddress] = []
    for text in given:
        try:
            ip = mesh.address(text)
        except ValueError as error:
            raise Refused(f"{document.where}: spec.clusterIP: {text!r} is no address (nor None)") from error
        network: mesh.IPNetwork = addressing.SERVICES4 if ip.version == 4 else addressing.SERVICES6
        if ip not in network:
            raise Refused(f"{document.where}: spec.clusterIP: {ip} is not in {network}")
        if ip in taken:
            raise Refused(f"{document.where}: spec.clusterIP: {ip} belongs to another service")
        addresses.append(ip)
    wanted = list(spec.get("ipFamilies") or [f"IPv{ip.version}" for ip in addresses] or ["IPv4"])
    if spec.get("ipFamilyPolicy", "SingleStack") != "SingleStack":
        wanted += [family for family in ("IPv4", "IPv6") if family not in wanted]
    for family in wanted:
        if not any(f"IPv{ip.version}" == family for ip in addresses):
            addresses.append(addressing.free_vip(family, taken))
    addresses.sort(key=lambda ip: wanted.index(f"IPv{ip.version}"))
    spec["ipFamilies"] = wanted
    spec["clusterIPs"] = [str(ip) for ip in addresses]
    spec["clusterIP"] = spec["clusterIPs"][0]


def vips(service: Mapping[str, Any]) -> tuple[mesh.IPAddress, ...]:
    """A service's addresses; none when headless."""
    spec = service["spec"]
    if spec.get("clusterIP") in {None, "", "None"} and not spec.get("clusterIPs"):
        return ()
    return tuple(mesh.address(text) for text in spec.get("clusterIPs") or [spec["clusterIP"]] if text != "None")
