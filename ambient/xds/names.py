"""How resources are called, and which noun a name stands for. Pure; knows no message.

Istio's names for Istio's types: a workload's uid, "namespace/hostname" of a Service, "namespace/name" of a policy. A
name alone says which noun it stands for, so that a removal needs nothing but the name.
"""

from __future__ import annotations

from collections.abc import Iterator

from ambient.model import mesh
from ambient.model.world import Kind, World

ADDRESS = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION = "type.googleapis.com/istio.security.Authorization"
NOUN = "type.googleapis.com/ambient.v1.Noun"
TYPES = (NOUN, AUTHORIZATION, ADDRESS)  # what protects goes before what it protects

IDENTIFIER = "ambient/"  # what our control plane's name starts with; any other knows only Istio's types
MORE = "ambient.dev/more"  # a client's feature: it waits for the response that completes a state
DERIVED_STRICT = "istio_converted_static_strict"  # underscores: no object in Kubernetes can have such a name
DERIVED_PREFIX = "converted_peer_authentication_"
MESH = "mesh"
ROOTS = "roots"
_POD = "Kubernetes//Pod/"  # cluster, group, kind

Ref = tuple[Kind, str]  # as World.replace() names what it removes


def of_workload(key: str) -> str:
    return _POD + key


def of_service(service: mesh.Service) -> str:
    return f"{service.namespace}/{service.hostname}"


def of_address(ip: mesh.IPAddress) -> str:
    """The alias of whatever is at an address; the network's name, before the slash, is empty: there is one."""
    return f"/{ip}"


def of_noun(kind: Kind, key: str) -> str:
    return f"{_WORDS[kind]}/{key}"


def ref(type_url: str, name: str) -> Ref | None:
    """What a resource's name stands for in a World; None if for nothing there. Raises ValueError for no such name."""
    parts = name.split("/")
    match type_url:
        case _ if type_url == NOUN and name in (MESH, ROOTS):
            return None
        case _ if type_url == NOUN and (kind := _KINDS.get(parts[0])) and len(parts) > 1:
            return kind, "/".join(parts[1:])
        case _ if type_url == AUTHORIZATION and len(parts) == 2:
            return mesh.AuthorizationPolicy, name
        case _ if type_url == ADDRESS and len(parts) == 2 and all(parts):
            return mesh.Service, f"{parts[0]}/{service_name(*parts)}"
        case _ if type_url == ADDRESS and len(parts) >= 5:  # cluster/group/kind/namespace/name, a section name perhaps
            return mesh.Workload, f"{parts[3]}/{'/'.join(parts[4:])}"
    raise ValueError(f"{name!r} names no {type_url.rpartition('.')[2]}")


def service_name(namespace: str, hostname: str) -> str:
    """A Service's name by its hostname; of one that is not Kubernetes' the hostname itself."""
    name, _, domain = hostname.partition(".")
    return name if domain.startswith(f"{namespace}.svc.") else hostname


def keys(world: World, type_url: str, name: str) -> Iterator[str]:
    """By which names a client may ask for a resource and be sent it, its own first.

    A workload is sent to whoever asked for a Service it is behind: without endpoints a Service is of no use.
    """
    yield name
    if type_url != ADDRESS:
        return
    match ref(type_url, name):
        case mesh.Service, key if key in world.services:
            yield from map(of_address, world.services[key].vips)
        case mesh.Workload, key if key in world.workloads:
            workload = world.workloads[key]
            yield from aliases(workload)
            for service in world.services_of(workload):
                yield of_service(service)
                yield from map(of_address, service.vips)


def aliases(workload: mesh.Workload) -> tuple[str, ...]:
    """A host-network pod's address is its node's: it says nothing about the pod."""
    return () if workload.host_network else tuple(map(of_address, workload.addresses))


def lookup(world: World, type_url: str, key: str) -> Iterator[str]:
    """What a name that was asked for may mean: itself; an address's owners; with a Service the workloads behind it."""
    if type_url != ADDRESS:
        yield key
        return
    for kind, found in _owners(world, key):
        if kind is mesh.Workload:
            yield of_workload(found)
        elif service := world.services.get(found):
            yield of_service(service)
            yield from dict.fromkeys(of_workload(endpoint.workload) for endpoint in world.endpoints[found])
        else:
            yield key


def _owners(world: World, key: str) -> Iterator[Ref]:
    network, _, ip = key.rpartition("/")
    if not network and ip:
        try:
            claims = world.claims(mesh.address(ip))
        except ValueError:
            return
        for kind, _, owner in (claim.partition(":") for claim in claims):
            if kind in _CLAIMS:
                yield _CLAIMS[kind], owner
        return
    try:
        found = ref(ADDRESS, key)
    except ValueError:
        return
    if found:
        yield found


_WORDS: dict[Kind, str] = {
    mesh.Node: "node",
    mesh.Namespace: "namespace",
    mesh.PeerAuthentication: "peer-authentication",
    mesh.AuthorizationPolicy: "authorization-policy",
    mesh.TrafficPolicy: "traffic-policy",
}
_KINDS = {word: kind for kind, word in _WORDS.items()}
_CLAIMS: dict[str, Kind] = {"wl": mesh.Workload, "svc": mesh.Service}
