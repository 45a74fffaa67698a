"""What people wrote on objects for the mesh, and nobody reads: a typo in a key is no error to Kubernetes. Pure.

Only tells. Such a key may be a later version's, so it is a note, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ambient.sources import core, security
from ambient.sources.reading import Spot, hint

OWN = "ambient.dev/"
NAMESPACES = (core.UNKNOWN, core.REQUIRE_MTLS, core.SAME_NODE)
READ: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Namespace": {"labels": (core.MODE, *NAMESPACES), "annotations": NAMESPACES},
    "Pod": {"labels": (core.MODE, core.SAME_NODE), "annotations": (*core.LISTS, core.CAPTURED, core.SAME_NODE)},
    "AuthorizationPolicy": {"annotations": security.DRY_RUN},
}
KEYS = tuple(dict.fromkeys(key for places in READ.values() for keys in places.values() for key in keys))


def unread(manifest: object) -> Iterator[tuple[str, str]]:
    """Path and reason of each label and annotation that looks like the mesh's and changes nothing."""
    doc = Spot(manifest)
    kind, metadata = doc.get("kind").value, doc.get("metadata")
    places = READ.get(kind, {}) if isinstance(kind, str) else {}
    for where in ("labels", "annotations"):
        written = metadata.get(where)
        keys = written.value if isinstance(written.value, Mapping) else {}
        for key in keys:
            if isinstance(key, str) and key.startswith(OWN) and key not in places.get(where, ()):
                yield written.get(key).path, f"the mesh does not read this here: {_advice(key)}"
    istio = metadata.get("labels").get(core.ISTIO_MODE)
    if kind in ("Namespace", "Pod") and istio and istio.value not in ("ambient", "none"):
        yield istio.path, f"neither ambient nor none: {istio.value!r} changes nothing"


def _advice(key: str) -> str:
    if key not in KEYS:
        return hint(key, KEYS)
    there = [f"{where} of a {kind}" for kind, places in READ.items() for where, keys in places.items() if key in keys]
    return f"it belongs to the {' or the '.join(there)}"
