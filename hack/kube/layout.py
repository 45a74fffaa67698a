"""What the cluster's things are called, where they are kept and which addresses they have. Pure: nothing is made here.

There is one cluster per machine and every name is fixed: whoever ends it needs no record of what was begun.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NAME = "ambient-kube"
STATE = Path("/var/lib") / NAME  # on a disk: containerd's snapshots are overlays, whose upper side must not be one
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / NAME  # what costs minutes and does not change
NETNS_DIR = Path("/run/netns")  # iproute2's, so that `ip netns exec` works on these names

CONTROL_PLANE = f"{NAME}-cp"  # its network namespace
BRIDGE = "br0"  # in there: the network between the nodes
CONTROL_PLANE_IPS = ("172.30.0.1", "fd00:30::1")
NODE_IPS = ("172.30.0.{}", "fd00:30::{}")
PREFIXES = (24, 64)
API_PORT = 6443
API = f"https://{CONTROL_PLANE_IPS[0]}:{API_PORT}"

POD_NETWORKS = ("10.244.0.0/16", "fd00:244::/48")
NODE_POD_NETWORKS = ("10.244.{}.0/24", "fd00:244:0:{}::/64")
SERVICE_NETWORKS = ("10.96.0.0/16", "fd00:10:96::/112")
API_SERVICE_IP = "10.96.0.1"  # the first of its network: Kubernetes' rule
DNS_SERVICE_IPS = ("10.96.0.10", "fd00:10:96::a")
DOMAIN = "cluster.local"

LOGS = STATE / "logs"
PKI = STATE / "pki"
KUBECTL = STATE / "kubectl"


@dataclass(frozen=True, slots=True)
class Node:
    """One node, by its number from 1 on."""

    index: int

    @property
    def name(self) -> str:
        return f"node{self.index}"

    @property
    def netns(self) -> str:
        return f"{NAME}-{self.name}"

    @property
    def port(self) -> str:
        """Its end on the bridge."""
        return self.name

    @property
    def ips(self) -> tuple[str, str]:
        return NODE_IPS[0].format(10 + self.index), NODE_IPS[1].format(f"{10 + self.index:x}")

    @property
    def pod_networks(self) -> tuple[str, str]:
        return NODE_POD_NETWORKS[0].format(self.index), NODE_POD_NETWORKS[1].format(f"{self.index:x}")

    @property
    def root(self) -> Path:
        """Its root directory: what survives a restart of the node, as a disk does."""
        return STATE / "nodes" / self.name / "root"


def nodes(count: int = 2) -> list[Node]:
    return [Node(index) for index in range(1, count + 1)]


def kubeconfig(user: str) -> Path:
    return STATE / "kubeconfigs" / user
