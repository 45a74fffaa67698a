"""Builders for small Worlds: only what a test is about is named, the rest is ordinary."""

from __future__ import annotations

from typing import Any

from ambient.model.mesh import Namespace, Node, Service, ServicePort, Workload, address
from ambient.model.world import World


def a_pod(key: str, ip: str, **more: Any) -> Workload:
    namespace, _, name = key.partition("/")
    given: dict[str, Any] = {
        "uid": "uid-" + name,
        "node": "a",
        "service_account": name.rpartition("-")[0] or name,
        "addresses": (address(ip),),
        "labels": {"app": name.rpartition("-")[0] or name},
        "ready": True,
        "enrolled": True,
    }
    return Workload(namespace=namespace, name=name, **(given | more))


def a_service(key: str, *vips: str, **more: Any) -> Service:
    namespace, _, name = key.partition("/")
    given: dict[str, Any] = {
        "vips": tuple(map(address, vips)),
        "ports": (ServicePort(name="http", port=80, target=8080),),
        "selector": {"app": name},
    }
    return Service(namespace=namespace, name=name, **(given | more))


def a_world(*nouns: Any) -> World:
    """Two nodes and the namespaces shop and other, beside what is given."""
    nodes = [Node(name="a", addresses=(address("192.0.2.1"),)), Node(name="b", addresses=(address("192.0.2.2"),))]
    namespaces = [Namespace(name="shop", enrolled=True), Namespace(name="other")]
    return World.build(nodes=nodes, namespaces=namespaces).replace(nouns, revision="r1")
