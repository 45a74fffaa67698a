"""What the lab plays of Kubernetes, as data: fields it acts by, fields that make no difference here, fields it refuses.

As strict as an API server: a field that nobody knows is an error, and what a cluster would act by is never ignored.
Pure. What is inside a policy is the mesh's own parser's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ambient.lab.manifests import DNS_LABEL, KINDS, LABEL, Key, annotation_keys, identify, labels
from ambient.lab.podspec import PLACED, POD
from ambient.lab.shapes import Each, Field, Notes, Shape, anything, only, port_or_name
from ambient.model import mesh
from ambient.sources import manifests, settings
from ambient.sources.documents import Document
from ambient.sources.errors import BadManifest, Note
from ambient.sources.reading import Spot

ITS_OWN = ""  # an API server's to write: passed over without a word, as it does
METADATA = Shape(
    played={
        "name": anything,  # see manifests.identify()
        "namespace": anything,
        "labels": labels,
        "annotations": annotation_keys,
        "ownerReferences": anything,
        "creationTimestamp": Spot.text,
    },
    moot={
        **dict.fromkeys(("uid", "resourceVersion", "generation", "managedFields", "selfLink"), ITS_OWN),
        "finalizers": "the lab deletes at once",
    },
    beyond={
        "generateName": "give it a name",
        "deletionTimestamp": "delete it with `ambient lab delete`",
        "deletionGracePeriodSeconds": "delete it with `ambient lab delete`",
    },
)


def _port_name(spot: Spot) -> None:
    if not (isinstance(spot.value, str) and (not spot.value or DNS_LABEL.fullmatch(spot.value))):
        spot.wrong(LABEL)


def _families(spot: Spot) -> None:
    for item in spot.items():
        only("IPv4", "IPv6")(item)


def _cluster_ip(spot: Spot) -> None:
    if spot.value not in ("None", ""):
        spot.parsed(mesh.address, "an IP address, or None")


def _cluster_ips(spot: Spot) -> None:
    for item in spot.items():
        _cluster_ip(item)


def _fits_together(service: Spot) -> None:
    """Ports are different, by number and by name, and a fixed address is of a family that the service has."""
    seen: set[tuple[object, object]] = set()
    names: set[object] = set()
    ports = list(service.get("ports").items())
    for entry in ports:
        name = entry.get("name")
        if name.value in names:
            name.wrong("a name of its own")
        elif len(ports) > 1 and not name.value:
            name.wrong("a name, where there are several ports", None if name else "nothing")
        else:
            names.add(name.value)
        port = (entry.get("protocol").text("TCP"), entry.get("port").value)
        if port in seen:
            entry.get("port").wrong("a port of its own")
        seen.add(port)
    families = [item.value for item in service.get("ipFamilies").items()]
    for given in [service.get("clusterIP"), *service.get("clusterIPs").items()]:
        if families and given.value not in (None, "None", ""):
            ip = given.address()
            if ip is not None and f"IPv{ip.version}" not in families:
                given.wrong("an address of one of the ipFamilies")


ONLY_CLUSTER_IP = "the lab plays Services of type ClusterIP only"
SERVICE = Shape(
    played={
        "selector": labels,
        "ports": Each(
            Shape(
                played={
                    "name": _port_name,
                    "port": Spot.port,
                    "targetPort": port_or_name,
                    "protocol": only("TCP", "UDP"),
                    "appProtocol": Spot.text,
                },
                beyond={"nodePort": ONLY_CLUSTER_IP},
                required={"port": "a port number"},
            )
        ),
        "type": only("ClusterIP", why="clusterIP: None makes it headless; the lab has no other types"),
        "clusterIP": _cluster_ip,
        "clusterIPs": _cluster_ips,
        "ipFamilies": _families,
        "ipFamilyPolicy": only("SingleStack", "PreferDualStack", "RequireDualStack"),
        "publishNotReadyAddresses": Spot.flag,
        "trafficDistribution": Spot.text,
        "internalTrafficPolicy": Spot.text,
        "sessionAffinity": only("None", why="the lab draws a backend for each connection"),
    },
    beyond={
        **dict.fromkeys(
            (
                "externalIPs", "externalName", "externalTrafficPolicy", "healthCheckNodePort", "loadBalancerIP",
                "loadBalancerClass", "loadBalancerSourceRanges", "allocateLoadBalancerNodePorts",
            ),
            ONLY_CLUSTER_IP,
        ),
        "sessionAffinityConfig": "the lab draws a backend for each connection",
    },
    also=_fits_together,
)  # fmt: skip

NODE = Shape(
    played={},
    moot={"providerID": "the lab's nodes are nobody's machines"},
    beyond={
        **dict.fromkeys(("podCIDR", "podCIDRs"), "the lab gives each node its own"),
        **dict.fromkeys(("taints", "unschedulable"), PLACED),
        "configSource": "the lab's nodes are not configured",
    },
)
NAMESPACE = Shape(played={}, moot={"finalizers": "the lab deletes at once"})
# What every object has around its spec.
OUTSIDE: Mapping[str, Field] = {"apiVersion": only("v1"), "kind": anything, "metadata": METADATA}
REPORTED = {"status": ITS_OWN}
SPECS: Mapping[str, Shape] = {
    "Namespace": Shape(played={**OUTSIDE, "spec": NAMESPACE}, moot=REPORTED),
    "Node": Shape(played={**OUTSIDE, "spec": NODE}, moot=REPORTED),
    "Pod": Shape(played={**OUTSIDE, "spec": POD}, moot=REPORTED, required={"spec": "a mapping"}),
    "Service": Shape(played={**OUTSIDE, "spec": SERVICE}, moot=REPORTED, required={"spec": "a mapping"}),
    "ServiceAccount": Shape(
        played=OUTSIDE,
        moot=dict.fromkeys(("secrets", "imagePullSecrets", "automountServiceAccountToken"), "the lab has no Secrets"),
    ),
    **dict.fromkeys(
        ("AuthorizationPolicy", "PeerAuthentication"),
        Shape(played={**OUTSIDE, "apiVersion": only(*manifests.SECURITY), "spec": anything}, moot=REPORTED),
    ),
    "TrafficPolicy": Shape(played={**OUTSIDE, "apiVersion": only(manifests.OWN), "spec": anything}, moot=REPORTED),
}
assert SPECS.keys() == set(KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there is to say of one document."""

    key: Key | None  # None: nobody can tell what it is about
    errors: list[BadManifest] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def look(document: Document) -> Look:
    """Can the lab play it, and does the mesh understand it? Never raises for what is in it."""
    spot, notes = Spot(document.manifest), Notes()
    key = identify(spot)
    if key is not None:
        SPECS[key.kind].read(spot, notes)
    said = {row.path for row in spot.problems}
    problems = [
        *spot.problems,
        *(row for row in manifests.translate(document.manifest).problems if row.path not in said),
    ]
    place, subject = document.place, str(key or "")
    return Look(
        key=key,
        errors=[place.wrong(subject, row.path, row.expected, row.found) for row in dict.fromkeys(problems)],
        notes=[place.note(subject, *note) for note in (*notes, *settings.unread(document.manifest))],
    )
