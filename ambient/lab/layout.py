"""Where a lab keeps things and what it calls them. Pure: names and paths, nothing is opened or made here.

Everything that outlives a process carries the lab's name, so that several labs stand side by side and `down` can tell
its own things from anybody else's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ambient import config
from ambient.lab.errors import Misused

BASE = config.LABS
NETNS_DIR = Path("/run/netns")  # iproute2's, so that `ip netns exec` works on what `lab status` prints


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths and names of one lab."""

    lab: str
    cgroup2: Path  # the root of the cgroup v2 hierarchy
    base: Path = BASE

    def __post_init__(self) -> None:
        if not config.LAB_NAME.fullmatch(self.lab):
            raise Misused(f"lab name {self.lab!r}: expected {config.LAB_NAME_IS}")

    @property
    def state(self) -> Path:
        return self.base / self.lab

    @property
    def state_file(self) -> Path:
        return self.state / "state.json"

    @property
    def socket(self) -> Path:
        return self.state / "lab.sock"

    @property
    def daemon_log(self) -> Path:
        return self.state / "lab.log"

    @property
    def cluster(self) -> Path:
        """One YAML file per object: what the agents read."""
        return self.state / "cluster"

    @property
    def staging(self) -> Path:
        """Where files are written before they are renamed into cluster/: nobody watches it."""
        return self.state / "staging"

    @property
    def ca(self) -> Path:
        return self.state / "ca"

    def node_dir(self, node: str) -> Path:
        return self.state / "nodes" / node

    def run_dir(self, node: str) -> Path:
        return self.node_dir(node) / "run"

    def bpffs(self, node: str) -> Path:
        return self.node_dir(node) / "bpf"

    def admin(self, node: str) -> Path:
        return self.run_dir(node) / "admin.sock"

    def agent_log(self, node: str) -> Path:
        return self.node_dir(node) / "agent.log"

    def pod_log(self, pod: str) -> Path:
        return self.state / "pods" / f"{pod.replace('/', '_')}.log"

    def pod_etc(self, pod: str) -> Path:
        """The pod's own hosts and resolv.conf, bind-mounted over the host's."""
        return self.state / "pods" / f"{pod.replace('/', '_')}.etc"

    @property
    def cgroup(self) -> Path:
        return self.cgroup2 / f"ambient-lab-{self.lab}"

    @property
    def daemon_cgroup(self) -> Path:
        # Upper case: no node is called that, so the daemon's own connects are never below a node's hooks.
        return self.cgroup / "DAEMON"

    def node_cgroup(self, node: str) -> Path:
        return self.cgroup / node

    def agent_cgroup(self, node: str) -> Path:
        return self.cgroup / node / "agent"

    def pod_cgroup(self, node: str, uid: str) -> Path:
        return self.cgroup / node / f"pod{uid}"

    @property
    def fabric_netns(self) -> str:
        return f"amb-{self.lab}-FABRIC"  # upper case, as above

    def node_netns(self, node: str) -> str:
        return f"amb-{self.lab}-{node}"

    def pod_netns(self, pod: str) -> str:
        return f"amb-{self.lab}-{pod.replace('/', '_')}"  # no Kubernetes name has an underscore


def netns_path(name: str) -> Path:
    return NETNS_DIR / name


def pod_link(pod: str) -> str:
    """The node's end of the pod's veth: 15 bytes at most, and the same for the same pod."""
    return "pod" + hashlib.sha256(pod.encode()).hexdigest()[:10]


def node_link(index: int) -> str:
    """The bridge's port for a node."""
    return f"node{index}"
