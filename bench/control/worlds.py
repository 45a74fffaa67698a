"""Worlds of any size that look like clusters: 5 pods a Service, 100 a node and a namespace, a policy for 20 pods."""

from __future__ import annotations

import math
from dataclasses import replace

from ambient.model import mesh
from ambient.model.world import World

PODS_PER_SERVICE = 5
PODS_PER_NODE = 100
SERVICES_PER_NAMESPACE = 20
SERVICES_PER_POLICY = 4
ZONES = 3
STRIDE = 7919  # so that changes are spread


def world(pods: int) -> World:
    services = range(math.ceil(pods / PODS_PER_SERVICE))
    nodes = range(math.ceil(pods / PODS_PER_NODE))
    return World.build(
        nodes=[_node(number) for number in nodes],
        namespaces=[mesh.Namespace(name=name, enrolled=True) for name in {_namespace(number) for number in services}],
        workloads=[_pod(number, len(nodes)) for number in range(pods)],
        services=[_service(number) for number in services],
        policies=[_policy(number) for number in services[::SERVICES_PER_POLICY]],
        revision="0",
    )


def change(world: World, kind: str, number: int) -> World:
    """The next World: "pod": one more or less ready, "policy": one with another rule; another one for each number."""
    return {"pod": _pod_change, "policy": _policy_change}[kind](world, number)


def _pod_change(world: World, number: int) -> World:
    pod = world.workloads[_pod_key(number * STRIDE % len(world.workloads))]
    return world.replace([replace(pod, ready=not pod.ready)], revision=f"pod-{number}")


def _policy_change(world: World, number: int) -> World:
    service = number * STRIDE % len(world.policies) * SERVICES_PER_POLICY
    policy = world.policies[f"{_namespace(service)}/allow-{service}"]
    port = mesh.Match(destination_ports=(1 + number % 60_000,))
    rules = (*policy.rules[:1], mesh.Rule(clauses=((port,),)))
    return world.replace([replace(policy, rules=rules)], revision=f"policy-{number}")


def _pod_key(number: int) -> str:
    service = number // PODS_PER_SERVICE
    return f"{_namespace(service)}/{_pod_name(number)}"


def _pod_name(number: int) -> str:
    return f"app-{number // PODS_PER_SERVICE}-7d4b9c6f5d-{number:05x}"


def _namespace(service: int) -> str:
    return f"team-{service // SERVICES_PER_NAMESPACE}"


def _address(block: int, number: int) -> mesh.IPAddress:
    return mesh.address(bytes([block + (number >> 16), number >> 8 & 255, number & 255, 1]))


def _node(number: int) -> mesh.Node:
    locality = mesh.Locality("home", f"zone-{number % ZONES}")
    return mesh.Node(name=f"node-{number}", addresses=(_address(192, number),), locality=locality)


def _pod(number: int, nodes: int) -> mesh.Workload:
    service, node = number // PODS_PER_SERVICE, number % nodes
    app = f"app-{service}"
    return mesh.Workload(
        namespace=_namespace(service),
        name=_pod_name(number),
        uid=f"{number:08x}-5a1c-4a6e-9d1e-2f8c1b7a6e55",
        node=f"node-{node}",
        service_account=app,
        addresses=(_address(10, number),),
        labels={"app": app, "version": "v1", "pod-template-hash": "7d4b9c6f5d", "tier": "backend"},
        ports={"http": 8080},
        ready=True,
        enrolled=True,
        locality=mesh.Locality("home", f"zone-{node % ZONES}"),
        owner=app,
    )


def _service(number: int) -> mesh.Service:
    return mesh.Service(
        namespace=_namespace(number),
        name=f"app-{number}",
        vips=(_address(100, number),),
        ports=(
            mesh.ServicePort(name="http", port=80, target="http"),
            mesh.ServicePort(name="grpc", port=9090, target=9090),
        ),
        selector={"app": f"app-{number}"},
    )


def _policy(service: int) -> mesh.AuthorizationPolicy:
    caller = mesh.Match(principals=(f"cluster.local/ns/{_namespace(service)}/sa/app-{service + 1}",))
    return mesh.AuthorizationPolicy(
        namespace=_namespace(service),
        name=f"allow-{service}",
        selector={"app": f"app-{service}"},
        rules=(mesh.Rule(clauses=((caller,), (mesh.Match(destination_ports=(8080, 9090)),))),),
    )
