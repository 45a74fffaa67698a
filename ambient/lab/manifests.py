"""What manifests are about: kinds, names, labels. Pure; what is in them is checked in playable.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ambient.sources.reading import Spot, hint

Manifest = Mapping[str, Any]
CLUSTER_SCOPED = frozenset({"Namespace", "Node"})
# In the order they are published: a policy is known before the pod it guards.
KINDS = (
    "Namespace", "Node", "ServiceAccount", "PeerAuthentication", "AuthorizationPolicy", "TrafficPolicy", "Pod",
    "Service",
)  # fmt: skip
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = "a DNS label: at most 63 lower-case letters, digits and dashes"  # also part of a host's name
SUBDOMAIN = "at most 63 lower-case letters, digits, dashes and dots"
NODE = "at most 40 lower-case letters, digits, dashes and dots (it is part of the paths of sockets)"
_NAMES = {
    "Namespace": (DNS_LABEL, LABEL),
    "Service": (DNS_LABEL, LABEL),
    "Node": (re.compile(r"[a-z0-9]([-a-z0-9.]{0,38}[a-z0-9])?"), NODE),
}
_NAME = (re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"), SUBDOMAIN)
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_WORD}")
_LABEL_VALUE = re.compile(rf"({_WORD})?")


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


def identify(manifest: Spot) -> Key | None:
    """What a manifest is about; None, with problems, when that is nothing the lab knows or has no proper name."""
    if not isinstance(manifest.value, Mapping):
        manifest.wrong("a Kubernetes object (a mapping with apiVersion, kind and metadata)")
        return None
    kind = manifest.get("kind")
    if kind.value not in KINDS:
        close = hint(str(kind.value), KINDS) if kind else ""
        close = f"; {close}" if close.startswith("did") else ""
        kind.wrong(f"one of {', '.join(KINDS)} (the lab runs no other controller{close})")
        return None
    name, namespace = (manifest.at("metadata", part) for part in ("name", "namespace"))
    pattern, expected = _NAMES.get(str(kind.value), _NAME)
    good = isinstance(name.value, str) and bool(pattern.fullmatch(name.value))
    if not good:
        name.wrong(expected)
    if kind.value in CLUSTER_SCOPED:
        return Key(str(kind.value), "", str(name.value)) if good else None
    if namespace and not (isinstance(namespace.value, str) and _NAMES["Namespace"][0].fullmatch(namespace.value)):
        namespace.wrong(LABEL)
        return None
    return Key(str(kind.value), str(namespace.value or "default"), str(name.value)) if good else None


def labels(spot: Spot) -> None:
    """Notes every label that is none."""
    for key, value in spot.labels().items():
        if wrong := bad_label(key, value):
            spot.get(key).wrong(wrong, repr(f"{key}={value}"))


def annotation_keys(spot: Spot) -> None:
    """Like labels(), but the values may be any text."""
    for key in spot.labels():
        if wrong := bad_label(key, ""):
            spot.get(key).wrong(wrong, repr(key))


def bad_label(key: str, value: str) -> str:
    """What a label should be, if this is none; else empty."""
    if not _LABEL_KEY.fullmatch(key):
        return "a key of letters, digits, -_. (at most 63), with PREFIX/ before it or without"
    return "" if _LABEL_VALUE.fullmatch(value) else "a value of letters, digits, -_. (at most 63)"
