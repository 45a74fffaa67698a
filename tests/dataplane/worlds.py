"""Builders: a small World of two nodes, and the local pods of the first."""

from __future__ import annotations

from ambient.dataplane.pods import LocalPod, LocalPods
from ambient.model.mesh import Identity, IPAddress, Namespace, Node, Service, ServicePort, Workload, address
from ambient.model.world import World

NODE_1, NODE_2 = address("172.16.0.1"), address("172.16.0.2")
CLIENT_IP, WEB_IP, API_IP, LEGACY_IP = (address(f"10.1.0.{n}") for n in (1, 2, 3, 4))
WEB_VIP = address("10.96.0.1")
CLIENT = Identity("cluster.local", "shop", "client")
WEB = Identity("cluster.local", "shop", "web")


def a_pod(name: str, ip: object, node: str = "node-1", **fields: object) -> Workload:
    given = {"namespace": "shop", "service_account": name, "ready": True, "enrolled": True, "owner": name} | fields
    return Workload(name=name, uid=f"uid-{name}", node=node, addresses=(ip,), labels={"app": name}, **given)  # type: ignore[arg-type]


def a_service(name: str, app: str, *vips: IPAddress) -> Service:
    """Port 80 of the pods labelled `app`, which listen on 8080."""
    ports = (ServicePort(name="http", port=80, target=8080),)
    return Service(namespace="shop", name=name, vips=vips, ports=ports, selector={"app": app})


def a_world(*more: object, without: str = "") -> World:
    """client and legacy on node-1, web and api on node-2; a Service in front of web. Legacy is not enrolled."""
    things: list[object] = [
        Node(name="node-1", addresses=(NODE_1,)),
        Node(name="node-2", addresses=(NODE_2,)),
        Namespace(name="shop", enrolled=True),
        a_pod("client", CLIENT_IP),
        a_pod("web", WEB_IP, "node-2"),
        a_pod("api", API_IP, "node-2"),
        a_pod("legacy", LEGACY_IP, enrolled=False),
        a_service("web", "web", WEB_VIP),
    ]
    kept = [thing for thing in things if getattr(thing, "name", None) != without or isinstance(thing, Service)]
    return World.build().replace([*kept, *more], revision="1")  # type: ignore[list-item]


def the_pods(world: World) -> LocalPods:
    pods = LocalPods()
    for cookie, workload in enumerate(world.workloads_on("node-1"), start=100):
        if workload.enrolled:
            pods.add(LocalPod(cookie, workload.key, workload.uid, workload.identity("cluster.local")))
    return pods
