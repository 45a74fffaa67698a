"""A client, a Service with endpoints near and far, and what plan() says: for the tests of routes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.model import mesh, route
from ambient.model.mesh import Locality

from .builders import IP, a_node, a_peer_authentication, a_pod, a_service, a_world

WEB = {"app": "web"}
HTTP = {"http": 8080}
CLIENT = a_pod("front/cart", "10.1.0.9", node="n1", locality=Locality("eu", "a"))
SERVICE = a_service("shop/web", "10.96.0.1", target="http")
NEAR = a_pod("shop/near", "10.1.0.1", labels=WEB, ports=HTTP, node="n1", locality=Locality("eu", "a"))
ZONE = a_pod("shop/zone", "10.1.0.2", labels=WEB, ports={"http": 80}, node="n2", locality=Locality("eu", "a"))
REGION = a_pod("shop/region", "10.1.0.3", labels=WEB, ports=HTTP, node="n3", locality=Locality("eu", "b"))
FAR = a_pod("shop/far", "10.1.0.4", labels=WEB, ports=HTTP, node="n4", locality=Locality("us", "a"))
NODE = a_node("n1", "10.0.0.1")
EVERYWHERE = (CLIENT, SERVICE, NEAR, ZONE, REGION, FAR, NODE)
VIP = "10.96.0.1"
REQUIRED = mesh.Namespace(name="front", require_mtls=True)


def ask(*nouns: Any, to: str = VIP, port: int = 80, client: mesh.Workload = CLIENT, **more: Any) -> Any:
    config = more.pop("config", None)
    return route.plan(a_world(client, *nouns, config=config), client, IP(to), port, **more)


def chosen(plan: Any) -> dict[str, int]:
    """Workload -> weight, in order."""
    assert isinstance(plan, route.Carry), plan
    return {choice.workload.name: choice.weight for choice in plan.choices}


WAITING = replace(NEAR, captured=False)
STRICT = a_peer_authentication("shop/strict", "STRICT")
ONE_PORT = replace(STRICT, selector=WEB, mode=None, port_modes={8080: mesh.MtlsMode.STRICT})
BOTH_WAYS = pytest.mark.parametrize(("to", "port"), [(VIP, 80), ("10.1.0.1", 8080)], ids=["a VIP", "the pod"])
