"""What is kept of each object is all that is read of it."""

from __future__ import annotations

import json
import pathlib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
import yaml

from ambient.sources import manifests
from ambient.sources.kubernetes import kinds
from ambient.sources.kubernetes.kinds import Resource

METADATA = {
    "name": "web",
    "namespace": "shop",
    "uid": "u",
    "labels": {"ambient.dev/mode": "enabled", "topology.kubernetes.io/zone": "a"},
    "annotations": {"ambient.dev/exclude-inbound-ports": "1", "ambient.dev/captured": "true"},
    "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": True, "uid": "x"}],
    "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:metadata": {}}}],
    "deletionTimestamp": "2026-01-01T00:00:00Z",
}
PORTS = [{"name": "http", "containerPort": 80, "protocol": "TCP"}]
WHOLE: dict[str, dict[str, Any]] = {
    "Pod": {
        "spec": {
            "nodeName": "n1",
            "serviceAccountName": "web",
            "hostNetwork": True,
            "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}], "ports": PORTS}],
            "initContainers": [{"name": "i", "restartPolicy": "Always", "ports": PORTS}],
            "volumes": [{"name": "v"}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.1.0.1",
            "podIPs": [{"ip": "10.1.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "containerStatuses": [{"name": "c"}],
        },
    },
    "Service": {
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"],
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http", "protocol": "TCP"}],
            "internalTrafficPolicy": "Local",
            "publishNotReadyAddresses": True,
            "trafficDistribution": "PreferClose",
            "sessionAffinity": "None",
        }
    },
    "Node": {"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "images": [{"names": ["x"]}]}},
    "Namespace": {"status": {"phase": "Active"}},
}
CORE = pytest.mark.parametrize("resource", kinds.CORE, ids=lambda resource: resource.kind)
Path = tuple[str, ...]


class Spy(Mapping[str, Any]):
    """Remembers which of its fields were asked for, there or not."""

    def __init__(self, inside: dict[str, Any], path: Path, asked: set[Path]) -> None:
        self._inside, self._path, self._asked = inside, path, asked

    def __getitem__(self, key: str) -> Any:
        self._asked.add((*self._path, key))
        return spied(self._inside[key], (*self._path, key), self._asked)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inside)

    def __len__(self) -> int:
        return len(self._inside)


def spied(value: Any, path: Path, asked: set[Path]) -> Any:
    if isinstance(value, dict):
        return Spy(value, path, asked)
    return [spied(item, path, asked) for item in value] if isinstance(value, list) else value


def paths_of(shape: Any, path: Path = ()) -> Iterator[tuple[Path, bool]]:
    """Every path of a shape, and whether all below it is kept."""
    for name, hint in typing.get_type_hints(shape).items():
        inner = [each for each in (hint, *typing.get_args(hint)) if typing.is_typeddict(each)]
        inner += [each for arg in typing.get_args(hint) for each in typing.get_args(arg) if typing.is_typeddict(each)]
        yield (*path, name), not inner
        for one in inner:
            yield from paths_of(one, (*path, name))


@CORE
def test_every_field_that_is_read_is_in_the_shape(resource: Resource) -> None:
    asked: set[Path] = set()
    whole = {"apiVersion": "v1", "kind": resource.kind, "metadata": METADATA, **WHOLE[resource.kind]}
    for removed in (None, "podIPs", "clusterIPs"):  # where one field goes before another, both are asked for
        sections = {
            name: {key: value for key, value in section.items() if key != removed}
            for name, section in WHOLE[resource.kind].items()
        }
        assert manifests.translate(Spy(whole | sections, (), asked)).object
    kept = dict(paths_of(resource.shape))
    missing = {
        path
        for path in asked - {("apiVersion",), ("kind",)}
        if path not in kept and not any(kept.get(path[:end]) for end in range(1, len(path)))
    }
    assert not missing


@CORE
def test_what_is_not_read_is_not_kept_and_that_changes_nothing(resource: Resource) -> None:
    whole = {"metadata": METADATA, **WHOLE[resource.kind]}
    kept = msgspec.json.decode(json.dumps(whole), type=resource.shape)
    text = json.dumps(kept)
    assert not any(word in text for word in ("managedFields", "volumes", "env", "images", "containerStatuses"))
    typed = {"apiVersion": "v1", "kind": resource.kind}
    assert manifests.translate(typed | kept) == manifests.translate(typed | whole)


def test_paths_and_names_are_the_apis() -> None:
    namespaces, ours, istios = kinds.CORE[0], kinds.POLICIES[0], kinds.POLICIES[3]
    assert (namespaces.path("v1"), namespaces.name) == ("/api/v1/namespaces", "namespaces")
    assert ours.path("v1alpha1") == "/apis/ambient.dev/v1alpha1/authorizationpolicies"
    assert istios.name == "peerauthentications.security.istio.io"
    assert kinds.definition_of(istios).path("v1") == "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert kinds.definition_of(istios).fields == "metadata.name=peerauthentications.security.istio.io"


def test_every_kind_and_version_that_can_be_read_is_watched() -> None:
    watched = {(r.api_version(version), r.kind) for r in (*kinds.CORE, *kinds.POLICIES) for version in r.versions}
    assert watched == set(manifests.KINDS)


@pytest.mark.parametrize("resource", [*kinds.CORE, *kinds.POLICIES], ids=lambda resource: resource.name)
def test_the_control_plane_may_watch_what_it_follows(resource: Resource) -> None:
    """One kind that may not be listed is no World at all."""
    file = pathlib.Path(__file__).parents[3] / "daemonset.yaml"
    (role,) = (
        body
        for body in yaml.safe_load_all(file.read_text())
        if body and (body["kind"], body["metadata"]["name"]) == ("ClusterRole", "ambient-control")
    )

    def may_watch(plural: str, group: str, name: str = "") -> bool:
        return any(
            group in rule["apiGroups"]
            and plural in rule["resources"]
            and {"list", "watch"} <= set(rule["verbs"])
            and name in rule.get("resourceNames", [name])
            for rule in role["rules"]
        )

    assert may_watch(resource.plural, resource.group)
    definition = kinds.definition_of(resource)
    assert not resource.group or may_watch(definition.plural, definition.group, resource.name)
