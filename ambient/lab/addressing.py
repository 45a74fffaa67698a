"""Who gets which address. Deterministic, no I/O: the plan below is the same in every lab, since each has its own netns.

underlay   172.18.0.0/16, fd00:18::/64    .1 is the fabric (the world outside), .10+n is node n
pods       10.244.n.0/24, fd00:244:0:n::/64 on node n
services   10.96.0.0/16, fd00:96::/112
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ambient.lab.errors import Refused
from ambient.model.mesh import IPAddress, IPNetwork

UNDERLAY4 = ipaddress.IPv4Network("172.18.0.0/16")
UNDERLAY6 = ipaddress.IPv6Network("fd00:18::/64")
PODS4 = ipaddress.IPv4Network("10.244.0.0/16")
PODS6 = ipaddress.IPv6Network("fd00:244::/48")
SERVICES4 = ipaddress.IPv4Network("10.96.0.0/16")
SERVICES6 = ipaddress.IPv6Network("fd00:96::/112")
FABRIC4 = UNDERLAY4[1]
FABRIC6 = UNDERLAY6[1]
NODES_MAX = 200
PODS_PER_NODE = 250


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    """What node number `index` owns."""

    index: int

    @property
    def ips(self) -> tuple[ipaddress.IPv4Address, ipaddress.IPv6Address]:
        return UNDERLAY4[10 + self.index], UNDERLAY6[10 + self.index]

    @property
    def pods4(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network((PODS4[self.index << 8], 24))

    @property
    def pods6(self) -> ipaddress.IPv6Network:
        return ipaddress.IPv6Network((PODS6[self.index << 64], 64))

    @property
    def pod_networks(self) -> tuple[IPNetwork, IPNetwork]:
        return self.pods4, self.pods6


def free_node(taken: Collection[int]) -> NodeAddresses:
    """The lowest free node number."""
    for index in range(1, NODES_MAX + 1):
        if index not in taken:
            return NodeAddresses(index)
    raise Refused(f"a lab has at most {NODES_MAX} nodes")


class PodNumbers:
    """Host numbers of one node's pods. One is not given again until all others were: a late packet finds no new pod."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._last = 1

    def take(self) -> int:
        for step in range(PODS_PER_NODE):
            number = 2 + (self._last - 2 + 1 + step) % PODS_PER_NODE
            if number not in self._used:
                self._used.add(number)
                self._last = number
                return number
        raise Refused(f"a node of a lab has room for {PODS_PER_NODE} pods")

    def give_back(self, number: int) -> None:
        self._used.discard(number)


def pod_ips(node: NodeAddresses, number: int) -> tuple[ipaddress.IPv4Address, ipaddress.IPv6Address]:
    return node.pods4[number], node.pods6[number]


def pod_mac(ip: ipaddress.IPv4Address) -> str:
    """A pod's MAC follows from its address, as the bridge CNI plugin does it: neighbour entries need no discovery."""
    return "0a:58:" + ":".join(f"{octet:02x}" for octet in ip.packed)


def free_vip(family: str, taken: Iterable[IPAddress]) -> IPAddress:
    """The lowest free service address of a family ("IPv4" or "IPv6"); the first ten stay free for what is fixed."""
    used = set(taken)
    network: IPNetwork = SERVICES4 if family == "IPv4" else SERVICES6
    for number in range(10, min(network.num_addresses, 65_000)):
        if network[number] not in used:
            return network[number]
    raise Refused(f"no {family} service address is left")
