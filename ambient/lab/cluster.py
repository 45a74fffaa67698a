"""The objects of the cluster and what changing them means, as an API server would say. Pure: a change makes a new one.

Kept across an apply, as Kubernetes keeps it: uid, node, service addresses, status, and labels the manifest does not
name (`kubectl label` and `kubectl apply` live together this way; take a label away with `label KEY-`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ambient.lab import addressing
from ambient.lab.errors import Misused, Refused
from ambient.lab.manifests import CLUSTER_SCOPED, Key, bad_label
from ambient.model import mesh
from ambient.sources.documents import Document
from ambient.sources.errors import BadManifest, Place
from ambient.sources.reading import Spot, hint

Objects = Mapping[Key, dict[str, Any]]
TARGET = "ns/NAME, node/NAME, pod/NAMESPACE/NAME or service/NAMESPACE/NAME"
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


def applied(
    objects: Objects, given: Mapping[Key, Document], *, new_uid: Callable[[], str]
) -> tuple[Objects, list[BadManifest]]:
    """The objects after an apply: merged, defaulted, scheduled, with addresses; or what stands against it."""
    result = dict(objects)
    spots = {key: Spot(document.manifest) for key, document in given.items()}
    for key, spot in spots.items():
        result[key] = _merged(key, spot, objects.get(key), new_uid)
    # Who names an address gets it: before those that take any.
    for key, spot in sorted(spots.items(), key=lambda row: not row[1].at("spec", "clusterIP")):
        if key.namespace and Key("Namespace", "", key.namespace) not in result:
            spot.at("metadata", "namespace").wrong("a namespace that exists (add its manifest)", repr(key.namespace))
        if key.kind == "Pod":
            _schedule(key, spot, result)
        elif key.kind == "Service":
            _give_addresses(key, spot, result)
    errors = [
        given[key].place.wrong(str(key), row.path, row.expected, row.found)
        for key, spot in spots.items()
        for row in spot.problems
    ]
    return result, errors


def deleted(objects: Objects, gone: Mapping[Key, Place]) -> tuple[Objects, list[BadManifest]]:
    """The objects after a delete, or what stands against it: a namespace takes what is in it along, a node its pods."""
    errors = []
    for key, place in gone.items():
        if key in INITIAL:
            errors.append(place.wrong(str(key), "", "something that can be deleted", "what belongs to every cluster"))
        elif key not in objects:
            errors.append(place.wrong(str(key), "", "an object that exists", f"none: {_those_there(objects, key)}"))
    nodes = {key.name for key in gone if key.kind == "Node"}
    namespaces = {key.name for key in gone if key.kind == "Namespace"}
    left = {
        key: body
        for key, body in objects.items()
        if key not in gone
        and key.namespace not in namespaces
        and not (key.kind == "Pod" and body["spec"]["nodeName"] in nodes)
    }
    return left, errors


def _those_there(objects: Objects, key: Key) -> str:
    """For whoever named an object that is not there."""
    names = sorted(str(other).partition(" ")[2] for other in objects if other.kind == key.kind)
    return hint(str(key).partition(" ")[2], names) if names else f"there is no {key.kind} at all"


def target(text: str) -> Key:
    """What TARGET names, as `label` takes it. Raises Misused."""
    match text.split("/"):
        case ["ns" | "namespace", name] if name:
            return Key("Namespace", "", name)
        case ["node", name] if name:
            return Key("Node", "", name)
        case [("pod" | "service") as kind, namespace, name] if namespace and name:
            return Key(kind.capitalize(), namespace, name)
    raise Misused(f"{text!r}: expected {TARGET}")


def change(text: str) -> tuple[str, str | None]:
    """A change of labels, as `label` takes it: the key, and its value or None to take it away. Raises Misused."""
    key, equals, value = text.partition("=")
    if equals:
        wrong = bad_label(key, value)
    elif key.endswith("-"):
        key = key.removesuffix("-")
        wrong = bad_label(key, "")
    else:
        wrong = "KEY=VALUE, or KEY- to take it away"
    if wrong:
        raise Misused(f"label {text!r}: expected {wrong}")
    return key, value if equals else None


def labelled(objects: Objects, key: Key, changes: Iterable[str]) -> Objects:
    """The objects after `label`. Raises Refused."""
    if key not in objects:
        raise Refused(f"{key} does not exist; {_those_there(objects, key)}")
    body = copy.deepcopy(objects[key])
    labels = body["metadata"].setdefault("labels", {})
    for name, value in map(change, changes):
        if value is None:
            labels.pop(name, None)
        else:
            labels[name] = value
    return {**objects, key: body}


def _merged(key: Key, spot: Spot, old: Mapping[str, Any] | None, new_uid: Callable[[], str]) -> dict[str, Any]:
    body: dict[str, Any] = _without_nulls(spot.value)
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
        _same_spec(spot, body["spec"], old["spec"])
    if key.kind == "Service":
        for field in ("clusterIP", "clusterIPs", "ipFamilies"):
            if field in old["spec"]:
                body["spec"].setdefault(field, old["spec"][field])
    return body


def _without_nulls(value: Any) -> Any:
    """A copy in which null is absent, as in Kubernetes."""
    if isinstance(value, Mapping):
        return {str(key): _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _same_spec(spot: Spot, new: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    for field in sorted(new.keys() | old.keys()):
        if new.get(field) != old.get(field):
            running = "what the pod runs with: only its labels and annotations can change (delete it first)"
            spot.at("spec", field).wrong(running, "something else")


def _schedule(key: Key, spot: Spot, objects: dict[Key, dict[str, Any]]) -> None:
    spec, wanted = objects[key]["spec"], spot.at("spec", "nodeName")
    nodes = sorted(other.name for other in objects if other.kind == "Node")
    if not nodes:
        wanted.wrong("a node, but there is none (add a Node manifest)")
    elif "nodeName" not in spec:
        load = [body["spec"].get("nodeName") for other, body in objects.items() if other.kind == "Pod"]
        spec["nodeName"] = min(nodes, key=lambda node: (load.count(node), node))
    elif spec["nodeName"] not in nodes:
        wanted.wrong(f"a node ({', '.join(nodes)})", repr(spec["nodeName"]))


def _give_addresses(key: Key, spot: Spot, objects: dict[Key, dict[str, Any]]) -> None:
    spec = objects[key]["spec"]
    if "None" in (spec.get("clusterIP"), *spec.get("clusterIPs", ())):
        return
    taken = {ip for other in objects if other.kind == "Service" and other != key for ip in vips(objects[other])}
    addresses = _given_addresses(spot.below("spec", spec), taken)
    wanted = list(spec.get("ipFamilies") or [f"IPv{ip.version}" for ip in addresses] or ["IPv4"])
    if spec.get("ipFamilyPolicy", "SingleStack") != "SingleStack":
        wanted += [family for family in ("IPv4", "IPv6") if family not in wanted]
    for family in wanted:
        if not any(f"IPv{ip.version}" == family for ip in addresses):
            addresses.append(addressing.free_vip(family, taken))
    addresses = [ip for ip in addresses if f"IPv{ip.version}" in wanted]
    addresses.sort(key=lambda ip: wanted.index(f"IPv{ip.version}"))
    spec["ipFamilies"] = wanted
    spec["clusterIPs"] = [str(ip) for ip in addresses]
    spec["clusterIP"] = spec["clusterIPs"][0]


def _given_addresses(spec: Spot, taken: Collection[mesh.IPAddress]) -> list[mesh.IPAddress]:
    """Those that the manifest names, or that the service has had."""
    several = list(spec.get("clusterIPs").items())
    found = []
    for given in several or ([spec.get("clusterIP")] if spec.get("clusterIP").value else []):
        if (ip := given.address()) is None:
            continue
        network: mesh.IPNetwork = addressing.SERVICES4 if ip.version == 4 else addressing.SERVICES6
        if ip not in network:
            given.wrong(f"an address in {network}", str(ip))
        elif ip in taken:
            given.wrong("an address that no other service has", str(ip))
        found.append(ip)
    return found


def vips(service: Mapping[str, Any]) -> tuple[mesh.IPAddress, ...]:
    """A service's addresses; none when headless."""
    spec = service["spec"]
    if spec.get("clusterIP") in {None, "", "None"} and not spec.get("clusterIPs"):
        return ()
    return tuple(mesh.address(text) for text in spec.get("clusterIPs") or [spec["clusterIP"]] if text != "None")
