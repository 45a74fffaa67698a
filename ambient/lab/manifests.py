"""From files or text to manifests, with the checks only the lab can make (can it play this?). No state here.

What the mesh reads of a manifest is checked by the mesh's own parser (admission.py); a kind or a field that the lab
would have to ignore although a cluster would act on it is refused rather than ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ambient.lab.errors import Refused
from ambient.sources.documents import Loader

Manifest = Mapping[str, Any]
CLUSTER_SCOPED = frozenset({"Namespace", "Node"})
# In the order they are published: a policy is known before the pod it guards.
KINDS = ("Namespace", "Node", "ServiceAccount", "PeerAuthentication", "AuthorizationPolicy", "Pod", "Service")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    kind: str
    namespace: str  # empty for what has none
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def pod(self) -> str:
        """namespace/name, as pods and services are called everywhere."""
        return f"{self.namespace}/{self.name}"

    @property
    def file(self) -> str:
        return "_".join(part for part in (self.kind.lower(), self.namespace, self.name) if part) + ".yaml"


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest and where it was written, for error texts."""

    where: str
    body: dict[str, Any]


def read(path: Path) -> list[Document]:
    """The documents of a file, or of every *.yaml, *.yml and *.json of a directory, in name order."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in {".yaml", ".yml", ".json"})
        if not files:
            raise Refused(f"{path}: no *.yaml, *.yml or *.json in this directory")
        return [document for file in files for document in read(file)]
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, file: str = "text") -> list[Document]:
    """The documents of one YAML (or JSON) stream; empty ones are skipped, a List is opened."""
    try:
        bodies = list(yaml.load_all(text, Loader=Loader))
    except yaml.YAMLError as error:
        raise Refused(f"{file}: not YAML: {error}") from error
    return [
        Document(f"{file} document {number}", body)
        for number, found in enumerate(bodies, 1)
        if found is not None
        for body in _opened(found, f"{file} document {number}")
    ]


def _opened(body: object, where: str) -> Iterator[dict[str, Any]]:
    if not isinstance(body, dict):
        raise Refused(f"{where}: expected a manifest (a mapping), found {type(body).__name__}")
    if body.get("kind") == "List":
        for item in body.get("items") or ():
            yield from _opened(item, where)
    else:
        yield body


def key_of(document: Document) -> Key:
    """What a document is about. Refuses kinds the lab does not play."""
    body, where = document.body, document.where
    kind = body.get("kind")
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise Refused(f"{where}: kind: expected one of {known}, found {kind!r}: the lab runs no such controller")
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        raise Refused(f"{where}: metadata: expected a mapping with a name, found {metadata!r}")
    name = metadata.get("name")
    namespace = "" if kind in CLUSTER_SCOPED else metadata.get("namespace", "default")
    for field, value in (("name", name), ("namespace", namespace or "x")):
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise Refused(f"{where}: metadata.{field}: expected a DNS label, found {value!r}")
    return Key(kind, namespace, str(name))


def check(document: Document) -> None:
    """Refuse what the lab cannot play."""
    key = key_of(document)
    if key.kind == "Pod":
        _check_pod(document)
    elif key.kind == "Service":
        _check_service(document)


def _check_pod(document: Document) -> None:
    spec = _mapping(document, document.body.get("spec"), "spec")
    if "initContainers" in spec:
        raise Refused(f"{document.where}: spec.initContainers: the lab runs plain containers only")
    if spec.get("restartPolicy", "Always") not in {"Always", "OnFailure", "Never"}:
        raise Refused(f"{document.where}: spec.restartPolicy: expected Always, OnFailure or Never")
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        raise Refused(f"{document.where}: spec.containers: expected at least one")
    for number, container in enumerate(containers):
        path = f"spec.containers[{number}]"
        container = _mapping(document, container, path)
        _strings(document, container.get("command"), f"{path}.command", "the lab runs host programs, not images")
        if "args" in container:
            _strings(document, container["args"], f"{path}.args", "quote numbers", empty=True)
        for index, variable in enumerate(container.get("env") or ()):
            if not isinstance(variable, dict) or not isinstance(variable.get("name"), str):
                raise Refused(f"{document.where}: {path}.env[{index}]: expected name and value")
            if "valueFrom" in variable and "fieldRef" not in (variable["valueFrom"] or {}):
                raise Refused(f"{document.where}: {path}.env[{index}].valueFrom: the lab knows fieldRef only")
        for field in ("livenessProbe", "startupProbe", "lifecycle"):
            if field in container:
                raise Refused(f"{document.where}: {path}.{field}: the lab plays readinessProbe only; leave it out")
        if "readinessProbe" in container:
            probe = _mapping(document, container["readinessProbe"], f"{path}.readinessProbe")
            if len({"tcpSocket", "httpGet", "exec"} & set(probe)) != 1:
                raise Refused(f"{document.where}: {path}.readinessProbe: expected one of tcpSocket, httpGet, exec")


def _check_service(document: Document) -> None:
    spec = _mapping(document, document.body.get("spec"), "spec")
    if spec.get("type", "ClusterIP") != "ClusterIP":
        raise Refused(f"{document.where}: spec.type: expected ClusterIP (or clusterIP: None), found {spec['type']!r}")
    if spec.get("ipFamilyPolicy", "SingleStack") not in {"SingleStack", "PreferDualStack", "RequireDualStack"}:
        raise Refused(f"{document.where}: spec.ipFamilyPolicy: found {spec['ipFamilyPolicy']!r}")
    families = spec.get("ipFamilies", [])
    if not isinstance(families, list) or not set(families) <= {"IPv4", "IPv6"}:
        raise Refused(f"{document.where}: spec.ipFamilies: expected a list of IPv4, IPv6, found {families!r}")


def _mapping(document: Document, value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{document.where}: {path}: expected a mapping, found {value!r}")
    return value


def _strings(document: Document, value: object, path: str, hint: str, *, empty: bool = False) -> None:
    if not isinstance(value, list) or not (value or empty) or not all(isinstance(word, str) for word in value):
        raise Refused(f"{document.where}: {path}: expected a list of strings, found {value!r}; {hint}")


def keyed(documents: Iterable[Document]) -> dict[Key, Document]:
    """By what they are about. Refuses two of the same."""
    result: dict[Key, Document] = {}
    for document in documents:
        key = key_of(document)
        if key in result:
            raise Refused(f"{document.where}: {key} was given before, in {result[key].where}")
        result[key] = document
    return result
