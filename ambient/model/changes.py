"""What differs between two Worlds, by key. Pure values; says nothing about what to do with a difference."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.model.mesh import IPAddress

NO_KEYS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Keys that were added, removed or given another value."""

    mesh: bool = False
    nodes: frozenset[str] = NO_KEYS
    namespaces: frozenset[str] = NO_KEYS
    workloads: frozenset[str] = NO_KEYS
    services: frozenset[str] = NO_KEYS  # the Service itself, its endpoints, or a workload behind one of them
    redefined: frozenset[str] = NO_KEYS  # of these, where it is the Service itself
    policies: frozenset[str] = NO_KEYS
    peer_authentications: frozenset[str] = NO_KEYS
    traffic_policies: frozenset[str] = NO_KEYS
    addresses: frozenset[IPAddress] = frozenset()  # whose owner is another, or nobody any more
    networks: bool = False  # some node's pod networks

    def __bool__(self) -> bool:
        return self != NOTHING

    def touched(self) -> frozenset[str]:
        """The tokens that decisions name in `deps`: a decision none of whose tokens is here would come out the same.

        "wl:ns/name", "svc:ns/name", "svcs:NS" (which Services there are in it, and their own fields), "ns:NAME",
        "ip:ADDR", "policy:NS" (who may come in: either kind of policy in it), "traffic:NS" (TrafficPolicies in it),
        "networks" (those of any node's pods), "mesh".
        """
        return frozenset(
            [
                *(["mesh"] if self.mesh else []),
                *(["networks"] if self.networks else []),
                *("ns:" + name for name in self.namespaces),
                *("wl:" + key for key in self.workloads),
                *("svc:" + key for key in self.services),
                *("svcs:" + namespace_of(key) for key in self.redefined),
                *("policy:" + namespace_of(key) for key in self.policies | self.peer_authentications),
                *("traffic:" + namespace_of(key) for key in self.traffic_policies),
                *(f"ip:{ip}" for ip in self.addresses),
            ]
        )


NOTHING = Changes()


def namespace_of(key: str) -> str:
    """The namespace in a "namespace/name" key."""
    return key.partition("/")[0]
