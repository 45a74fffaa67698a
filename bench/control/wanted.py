"""The made-up objects as a client creates them: without what the API server and its controllers say of them. Pure."""

from __future__ import annotations

from bench.control import objects
from bench.control.objects import Object

OURS = ("name", "namespace", "labels", "annotations")


def namespace(number: int) -> Object:
    return _of_a_client(objects.namespace(number))


def node(number: int) -> Object:
    """Its pods' network is kwok's to hand out; its addresses are told by whoever registers a node."""
    network = f"10.{128 + number // 256}.{number % 256}.0/24"
    found = objects.node(number)
    return _of_a_client(found) | {
        "spec": {"podCIDR": network, "podCIDRs": [network]},
        "status": {"addresses": found["status"]["addresses"]},
    }


def account(number: int) -> Object:
    return {"metadata": {"name": f"app-{number}", "namespace": objects.namespace_of(number)}}


def service(number: int, services: int) -> Object:
    """Its address is the server's choice."""
    found = _of_a_client(objects.service(number, services))
    del found["spec"]["clusterIP"], found["spec"]["clusterIPs"]
    return found


def policy(number: int) -> Object:
    return _of_a_client(objects.policy(number))


def pod(number: int, services: int) -> Object:
    """Nobody's: its ReplicaSet does not exist, and the garbage collector would notice."""
    return _of_a_client(objects.pod(number, services))


def agents_pod(name: str, namespace: str) -> Object:
    """For the agents' token to be bound to."""
    container = {"name": "agent", "image": "ambient"}
    spec = {"nodeName": "node-0", "serviceAccountName": name, "hostNetwork": True, "containers": [container]}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def name_of(found: Object) -> Object:
    """What says which object is meant."""
    return {name: found["metadata"][name] for name in ("name", "namespace")}


def _of_a_client(found: Object) -> Object:
    metadata = {name: found["metadata"][name] for name in OURS if name in found["metadata"]}
    return {"metadata": metadata} | ({"spec": found["spec"]} if "spec" in found else {})
