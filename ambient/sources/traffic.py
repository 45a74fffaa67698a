"""TrafficPolicy to the mesh's noun. Pure and strict, as for the other policies: an unknown field is an error."""

from __future__ import annotations

from collections.abc import Mapping

from ambient.model import mesh
from ambient.sources import security
from ambient.sources.reading import Spot

UNKNOWN: Mapping[str, mesh.OutboundMode] = {
    "Allow": mesh.OutboundMode.ALLOW_ANY,
    "Refuse": mesh.OutboundMode.REGISTRY_ONLY,
}
MTLS = {"Optional": False, "Required": True}


def traffic_policy(doc: Spot) -> mesh.TrafficPolicy:
    metadata = doc.get("metadata")
    spec = doc.get("spec").mapping("selector", "outbound").required("a mapping with outbound")
    outbound = spec.get("outbound").mapping("mtls", "unknownDestinations", "allowed")
    unknown = outbound.get("unknownDestinations").one_of(UNKNOWN, None)
    if spec and not (outbound.get("mtls") or outbound.get("unknownDestinations")):
        outbound.wrong("mtls or unknownDestinations", "neither")
    allowed = outbound.get("allowed")
    if allowed and unknown is not mesh.OutboundMode.REGISTRY_ONLY:
        allowed.wrong("unknownDestinations: Refuse beside it (it lists the exceptions)", "none")
    return mesh.TrafficPolicy(
        namespace=metadata.get("namespace").text("default"),
        name=metadata.get("name").text(),
        selector=security.selector(spec),
        outbound=unknown,
        allowed=tuple(map(_destinations, allowed.items())),
        require_mtls=outbound.get("mtls").one_of(MTLS, None),
        created=metadata.get("creationTimestamp").text(),
    )


def closed_traffic_policy(doc: Spot) -> mesh.TrafficPolicy:
    """What it selects (its whole scope, if that cannot be told) sends to nobody outside the mesh, nor in plaintext."""
    metadata = doc.get("metadata")
    matching = security.readable(security.selector, doc.get("spec"))
    return mesh.TrafficPolicy(
        namespace=metadata.get("namespace").text("default"),
        name=f"{metadata.get('name').text()} (unreadable: refuses)",
        selector=matching or {},
        outbound=mesh.OutboundMode.REGISTRY_ONLY,
        require_mtls=True,
        created="" if matching is None else metadata.get("creationTimestamp").text(),
    )


def _destinations(item: Spot) -> mesh.Destinations:
    item.required("a mapping with cidrs").mapping("cidrs", "ports")
    cidrs = item.get("cidrs")
    if item and cidrs.value in (None, []):
        cidrs.wrong("at least one address or CIDR block", "none")
    if item.get("ports").value == []:
        item.get("ports").wrong("at least one port, or no such field", "an empty list")
    return mesh.Destinations(
        networks=tuple(network for each in cidrs.items() if (network := each.network()) is not None),
        ports=frozenset(port for each in item.get("ports").items() if (port := each.port()) is not None),
    )
