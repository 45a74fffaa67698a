"""What a person means by HOST:PORT, in the mouth of one pod: the addresses it would dial. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from ambient.model.mesh import IPAddress, Service, Workload, address
from ambient.model.world import World

_SUFFIXES = (".svc.cluster.local", ".svc")


@dataclass(frozen=True, slots=True)
class Named:
    """The addresses a client would get for the name, and what the name is. Never without an address."""

    addresses: tuple[IPAddress, ...]
    port: int
    what: str


def client(world: World, key: str) -> Workload:
    """Raises ValueError, naming what exists, when there is no such pod."""
    found = world.workloads.get(key)
    if found is None:
        raise ValueError(f"there is no pod {key!r} (wanted: NAMESPACE/POD){_similar(key, world.workloads)}")
    return found


def split(text: str) -> tuple[str, int]:
    """HOST:PORT, IPv6 in brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in bare and bare == host):
        raise ValueError(f"{text!r} is not HOST:PORT (a port from 1 to 65535; an IPv6 address in brackets)")
    return bare, int(port)


def resolve(world: World, who: Workload, text: str) -> Named:
    """A service's name as its DNS has it, a VIP or any address, or a pod's name. Raises ValueError."""
    host, port = split(text)
    try:
        ip = address(host)
    except ValueError:
        pass
    else:
        return Named((ip,), port, f"address {ip}")
    key = _service_key(host, who.namespace)
    if (service := world.services.get(key)) is not None:
        return Named(_of_service(world, who, service), port, f"Service {key}")
    pod = world.workloads.get(host if "/" in host else f"{who.namespace}/{host}")
    if pod is not None:
        if not pod.addresses:
            raise ValueError(f"pod {pod.key} has no address yet")
        return Named((_nearest(who, pod.addresses),), port, f"pod {pod.key}")
    near = _similar(key, [*world.services, *world.workloads])
    raise ValueError(f"{host!r} is no service, pod or address that pod {who.key} could dial{near}")


def _service_key(host: str, namespace: str) -> str:
    for suffix in _SUFFIXES:
        host = host.removesuffix(suffix)
    name, dot, rest = host.partition(".")
    return f"{rest if dot else namespace}/{name}"


def _of_service(world: World, who: Workload, service: Service) -> tuple[IPAddress, ...]:
    if service.vips:
        return (_nearest(who, service.vips),)
    endpoints = [e for e in world.endpoints.get(service.key, ()) if e.ready or service.publish_not_ready]
    found = tuple(e.address for e in endpoints if e.address.version in _families(who))
    if not found:
        raise ValueError(f"Service {service.key} is headless and none of its pods is ready: its name has no address")
    return found


def _nearest(who: Workload, addresses: tuple[IPAddress, ...]) -> IPAddress:
    """The first of a family the client has."""
    return next((ip for ip in addresses if ip.version in _families(who)), addresses[0])


def _families(who: Workload) -> set[int]:
    return {ip.version for ip in who.addresses} or {4, 6}


def _similar(key: str, known: Iterable[str]) -> str:
    names = sorted(set(known))  # a pod may be called as its service is
    near = difflib.get_close_matches(key, names, n=3) or names[:5]
    return f"; there is {', '.join(near)}" if near else "; the mesh knows none at all"
