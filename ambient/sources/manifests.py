"""One Kubernetes object, as a mapping, to one noun. Pure; where the object came from is the caller's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ambient.model import mesh
from ambient.sources import core, security, traffic
from ambient.sources.reading import Problem, Spot

Object = (
    mesh.Node
    | mesh.Namespace
    | core.Pod
    | mesh.Service
    | mesh.AuthorizationPolicy
    | mesh.PeerAuthentication
    | mesh.TrafficPolicy
)
OWN_GROUP = "ambient.dev"
GROUPS = (OWN_GROUP, "security.istio.io")
CORE = "v1"
OWN = "ambient.dev/v1alpha1"
SECURITY = (OWN, "security.istio.io/v1", "security.istio.io/v1beta1")
CLUSTER_WIDE = ("Namespace", "Node")
SECURITY_KINDS: Mapping[str, Callable[[Spot], Object]] = {
    "AuthorizationPolicy": security.authorization_policy,
    "PeerAuthentication": security.peer_authentication,
}
# Whose status is written, and of whose fields none may be unknown.
POLICY_KINDS: Mapping[str, Callable[[Spot], Object]] = {**SECURITY_KINDS, "TrafficPolicy": traffic.traffic_policy}
KINDS: Mapping[tuple[str, str], Callable[[Spot], Object]] = {
    (CORE, "Namespace"): core.namespace,
    (CORE, "Node"): core.node,
    (CORE, "Pod"): core.pod,
    (CORE, "Service"): core.service,
    **{(version, kind): read for version in SECURITY for kind, read in SECURITY_KINDS.items()},
    (OWN, "TrafficPolicy"): traffic.traffic_policy,
}


# What may stand for an object that cannot be read. Of the other kinds it is what could be read, with the closed choice
# for a setting that could not.
STAND_INS: Mapping[str, Callable[[Spot], Object]] = {
    "AuthorizationPolicy": security.closed_authorization_policy,
    "PeerAuthentication": security.closed_peer_authentication,
    "TrafficPolicy": traffic.closed_traffic_policy,
}


class Ref(NamedTuple):
    """What names one object, as far as it could be read. Policies of one name in two API groups are two."""

    kind: str
    key: str  # namespace/name, or name
    group: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.key}".strip()


@dataclass(frozen=True, slots=True)
class Translated:
    """What became of one manifest: an object, or problems, or (of no concern to the mesh) neither but a note."""

    ref: Ref
    object: Object | None = None
    problems: tuple[Problem, ...] = ()
    note: str = ""
    stand_in: Object | None = None  # beside problems: what errs on the side of refusing, where one must go on

    @property
    def subject(self) -> str:
        return str(self.ref)


def translate(manifest: object) -> Translated:
    """Read one manifest. Never raises for what is in it."""
    doc = Spot(manifest)
    if not isinstance(manifest, Mapping):
        doc.wrong("a Kubernetes object (a mapping with apiVersion, kind and metadata)")
        return Translated(Ref("", ""), problems=tuple(doc.problems))
    version, kind = doc.get("apiVersion").required("an API version").text(), doc.get("kind").required("a kind").text()
    metadata = doc.get("metadata").mapping()
    name = metadata.get("name").required("a name").text()
    namespace = metadata.get("namespace").text("default")
    group = version.partition("/")[0] if version != CORE else ""
    ref = Ref(kind, name if kind in CLUSTER_WIDE or not name else f"{namespace}/{name}", group)
    read = KINDS.get((version, kind))
    if read is None:
        if group == OWN_GROUP and not doc.problems:
            known = ", ".join(f"{v} {k}" for v, k in KINDS if v.startswith(OWN_GROUP))
            doc.get("kind").wrong(f"a kind of the group {OWN_GROUP} ({known})", f"{version} {kind}")
        elif (group, kind) in {(v.partition("/")[0], k) for v, k in KINDS} and not doc.problems:
            versions = " or ".join(v for v, k in KINDS if k == kind)
            doc.get("apiVersion").wrong(versions)
        return Translated(ref, problems=tuple(doc.problems), note=f"{version} {kind} is of no concern to the mesh")
    if read in POLICY_KINDS.values():
        doc.mapping("apiVersion", "kind", "metadata", "spec", "status")
    found = read(doc)
    if doc.problems:
        stand_in = STAND_INS[kind](Spot(manifest)) if kind in STAND_INS else found
        return Translated(ref, problems=tuple(dict.fromkeys(doc.problems)), stand_in=stand_in)
    return Translated(ref, found)
