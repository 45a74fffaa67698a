"""Small objects for tests: what a test does not name does not matter to it."""

from __future__ import annotations

import ipaddress
from typing import Any

from ambient.model import mesh
from ambient.model.world import World

IP = mesh.address
ROOT = mesh.MeshConfig().root_namespace


def a_node(
    name: str = "n1", *addresses: str, region: str = "", zone: str = "", pods: tuple[str, ...] = ()
) -> mesh.Node:
    return mesh.Node(
        name=name,
        addresses=tuple(IP(text) for text in addresses),
        pod_networks=tuple(map(ipaddress.ip_network, pods)),
        locality=mesh.Locality(region=region, zone=zone),
    )


def a_pod(key: str = "shop/web", *addresses: str, **more: Any) -> mesh.Workload:
    namespace, name = key.split("/")
    defaults: dict[str, Any] = {"uid": "uid-" + name, "node": "n1", "ready": True, "enrolled": True, "owner": name}
    ips = tuple(IP(text) for text in addresses)
    return mesh.Workload(namespace=namespace, name=name, addresses=ips, **(defaults | more))


def a_service(key: str = "shop/web", *vips: str, port: int = 80, target: int | str = 8080, **more: Any) -> mesh.Service:
    namespace, name = key.split("/")
    defaults: dict[str, Any] = {
        "ports": (mesh.ServicePort(name="", port=port, target=target),),
        "selector": {"app": name},
    }
    return mesh.Service(namespace=namespace, name=name, vips=tuple(IP(v) for v in vips), **(defaults | more))


def a_policy(key: str = "shop/policy", *rules: mesh.Rule, **more: Any) -> mesh.AuthorizationPolicy:
    namespace, name = key.split("/")
    return mesh.AuthorizationPolicy(namespace=namespace, name=name, rules=rules, **more)


def a_rule(*matches: mesh.Match, **more: Any) -> mesh.Rule:
    """A rule whose every match is a clause of its own."""
    return mesh.Rule(clauses=tuple((match,) for match in matches), **more)


def a_peer_authentication(key: str, mode: str | None = None, **more: Any) -> mesh.PeerAuthentication:
    namespace, name = key.split("/")
    return mesh.PeerAuthentication(namespace=namespace, name=name, mode=mesh.MtlsMode[mode] if mode else None, **more)


def a_traffic_policy(key: str, **more: Any) -> mesh.TrafficPolicy:
    namespace, name = key.split("/")
    return mesh.TrafficPolicy(namespace=namespace, name=name, **more)


def an_identity(key: str = "front/cart", trust_domain: str = "cluster.local") -> mesh.Identity:
    return mesh.Identity(trust_domain, *key.split("/"))


def a_world(*nouns: Any, config: mesh.MeshConfig | None = None) -> World:
    return World.build(mesh=config or mesh.MeshConfig()).replace(nouns, revision="r")
