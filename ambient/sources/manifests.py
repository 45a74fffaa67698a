"""One Kubernetes object, as a mapping, to one noun. Pure; where the object came from is the caller's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ambient.model import mesh
from ambient.sources import core, security
from ambient.sources.reading import Problem, Spot

Object = mesh.Node | mesh.Namespace | core.Pod | mesh.Service | mesh.AuthorizationPolicy | mesh.PeerAuthentication
Ref = tuple[str, str]  # kind, key
OWN_GROUP = "ambient.dev"
CORE = "v1"
SECURITY = ("ambient.dev/v1alpha1", "security.istio.io/v1", "security.istio.io/v1beta1")
CLUSTER_WIDE = ("Namespace", "Node")
SECURITY_KINDS: Mapping[str, Callable[[Spot], Object]] = {
    "AuthorizationPolicy": security.authorization_policy,
    "PeerAuthentication": security.peer_authentication,
}
KINDS: Mapping[tuple[str, str], Callable[[Spot], Object]] = {
    (CORE, "Namespace"): core.namespace,
    (CORE, "Node"): core.node,
    (CORE, "Pod"): core.pod,
    (CORE, "Service"): core.service,
    **{(version, kind): read for version in SECURITY for kind, read in SECURITY_KINDS.items()},
}


@dataclass(frozen=True, slots=True)
class Translated:
    """What became of one manifest: an object, or problems, or (of no concern to the mesh) neither but a note."""

    ref: Ref  # kind, and namespace/name or name, as far as they could be read
    object: Object | None = None
    problems: tuple[Problem, ...] = ()
    note: str = ""

    @property
    def subject(self) -> str:
        return " ".join(part for part in self.ref if part)


def translate(manifest: object) -> Translated:
    """Read one manifest. Never raises for what is in it."""
    doc = Spot(manifest)
    if not isinstance(manifest, Mapping):
        doc.wrong("a Kubernetes object (a mapping with apiVersion, kind and metadata)")
        return Translated(("", ""), problems=tuple(doc.problems))
    version, kind = doc.get("apiVersion").required("an API version").text(), doc.get("kind").required("a kind").text()
    metadata = doc.get("metadata").mapping()
    name = metadata.get("name").required("a name").text()
    namespace = metadata.get("namespace").text("default")
    ref = (kind, name if kind in CLUSTER_WIDE or not name else f"{namespace}/{name}")
    read = KINDS.get((version, kind))
    if read is None:
        group = version.partition("/")[0]
        if group == OWN_GROUP and not doc.problems:
            known = ", ".join(f"{v} {k}" for v, k in KINDS if v.startswith(OWN_GROUP))
            doc.get("kind").wrong(f"a kind of the group {OWN_GROUP} ({known})", f"{version} {kind}")
        elif (group, kind) in {(v.partition("/")[0], k) for v, k in KINDS} and not doc.problems:
            versions = " or ".join(v for v, k in KINDS if k == kind)
            doc.get("apiVersion").wrong(versions)
        return Translated(ref, problems=tuple(doc.problems), note=f"{version} {kind} is of no concern to the mesh")
    if read in SECURITY_KINDS.values():
        doc.mapping("apiVersion", "kind", "metadata", "spec", "status")
    found = read(doc)
    if doc.problems:
        return Translated(ref, problems=tuple(dict.fromkeys(doc.problems)))
    return Translated(ref, found)
