"""A World of one node, pods of it, and requests about them."""

from __future__ import annotations

import json
from typing import Any

from ambient.agent.cni.request import Request
from ambient.model.mesh import IPAddress, Namespace, Node, Workload, address
from ambient.model.world import Noun, World

FIRST, SECOND, OTHER = (address(f"10.1.0.{number}") for number in (1, 2, 3))


def a_pod(name: str = "web", *ips: IPAddress, **fields: Any) -> Workload:
    given: dict[str, Any] = {"namespace": "shop", "enrolled": True, "uid": f"uid-{name}", "node": "node1"} | fields
    return Workload(name=name, addresses=ips, **given)


def a_world(*more: Noun) -> World:
    """Namespace `shop` is in the mesh, `elsewhere` is not."""
    return World.build(
        nodes=[Node(name="node1")], namespaces=[Namespace(name="shop", enrolled=True), Namespace(name="elsewhere")]
    ).replace(more, revision="1")


def a_message(body: object = None, **variables: str) -> bytes:
    given = {
        "AMBIENT_CNI": "1",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=uid-web",
    } | variables
    head = "".join(f"{key}={value}\0" for key, value in given.items())
    text = body if isinstance(body, bytes) else json.dumps({"cniVersion": "1.0.0"} if body is None else body).encode()
    return head.encode() + b"\0" + text


def a_request(command: str = "ADD", name: str = "web", **fields: Any) -> Request:
    given: dict[str, Any] = {
        "container": "c1",
        "namespace": "shop",
        "uid": f"uid-{name}",
        "addresses": (FIRST,),
    } | fields
    return Request(command=command, name=name, **given)
