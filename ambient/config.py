"""Settings of the agent: frozen, with unit, default and reason beside each.

The options and environment variables (AMBIENT_<OPTION>) that fill them are in ambient/cli/agent.py, and nowhere else.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ambient.model.mesh import MeshConfig

LEASE_LEAST_S = 30.0  # an agent stands by its verdicts every 5 s, on a busy node later
LABS = Path("/run/ambient/lab")  # a directory per lab on this machine
LAB = "lab"  # the one that is meant when none is named
# Part of names of netns and cgroups and of paths of sockets. No dash: "amb-NAME-" is no prefix of another lab's names.
LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,19}")
LAB_NAME_IS = "a letter, then at most 19 lower-case letters or digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Deadlines and limits that the engine keeps; see engine/abi.h."""

    connect_ms: int = 10_000  # a dial; ztunnel's figure, and what applications expect of a slow network
    handshake_ms: int = 5_000  # TLS, both ways: some RTTs and 4 ms of CPU, so this is a dead or hostile peer
    request_ms: int = 5_000  # a CONNECT to its answer, beyond the peer's own dial
    answer_ms: int = 10_000  # a question waits this long for an agent: a restart takes 2 s
    keepalive_s: int = 60  # idle time before TCP keepalive probes; NATs forget after minutes
    tunnel_idle_s: int = 90  # an unused tunnel stays warm: the next connection saves a handshake of 4 ms CPU
    max_streams: int = 1_000  # on one tunnel; more mice share better, but one loss delays all of them
    elephant_bytes: int = 1 << 20  # a stream that moved this much gets no new neighbours
    retries: int = 2  # further endpoints tried when a dial fails
    # One pod's connections that are being decided or dialled, at each worker; its further ones wait in the kernel. Each
    # may hold two descriptors for connect_ms, of 20,000 or more; honest pods open some hundreds at once
    under_way: int = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The control plane, as an agent finds it."""

    targets: tuple[str, ...]  # HOST:PORT; every address of every host is tried
    server_name: str  # a DNS name that its certificate must hold
    roots: Path  # PEM: a mounted ConfigMap
    token: Path  # a projected ServiceAccount token


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    node: str  # this node's name, as pods' spec.nodeName has it
    source: Path | None = None  # a directory of Kubernetes manifests ...
    ca_dir: Path | None = None  # ... and where the embedded CA keeps its root; shared by the agents of one mesh
    control: Upstream | None = None  # instead of both
    own_engine: bool = True  # start an engine where there is none; else wait for somebody to
    cgroup: Path  # connect hooks attach here; the pods' cgroups are below
    bpffs: Path = Path("/sys/fs/bpf")  # a mounted bpffs; links and maps are pinned below it
    run_dir: Path = Path("/run/ambient")  # admin and engine sockets
    mesh: MeshConfig = field(default_factory=MeshConfig)
    metrics_port: int = 15020  # 0: an ephemeral one
    health_port: int = 15021  # 0: an ephemeral one
    health_address: str = "127.0.0.1"  # kubelet is on the node; a pod that reached it could have the agent restarted
    engine_binary: Path | None = None  # None: the one that was built with this agent
    drain_timeout_s: int = 24 * 3600  # an engine that was replaced ends then: no tunnel outlives its certificate anyway
    engine_threads: int = 2  # workers share nothing; two let one elephant leave the mice alone
    stash: int = 32  # sockets per pod and worker made ahead of need: so many come in while no agent is there
    certificate_hours: float = 24.0  # lifetime of workload certificates; renewed at half of it
    cni_dirs: tuple[Path, Path] | None = None  # plugins' programs, their configurations; None: no plugin is installed
    # namespaces whose pods start though no agent can say what they are: DNS, without which agents find no control plane
    cni_exempt: tuple[str, ...] = ("kube-system",)
    daemonset: str = ""  # the agents' own, NAMESPACE/NAME: watched, for the hook that ends a pod
    cni_agents: str = ""  # how kubelet's directories for agents' pods begin; empty: the plugin always expects an agent
    engine: EngineSettings = field(default_factory=EngineSettings)

    @property
    def lease_s(self) -> float:
        """So long the kernel goes by the verdicts of an agent that is away: what its certificates have left at least.

        They are renewed at half their life, and end what goes through engines.
        """
        return max(LEASE_LEAST_S, self.certificate_hours * 3600 / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    namespace: str  # its own: Lease, CA and roots are kept there
    replica: str  # this pod's name
    kubeconfig: Path | None = None  # None: this pod's ServiceAccount, else kubectl's
    ca_files: Path | None = None  # an intermediate of somebody else's CA, mounted; None: a CA of our own, in a Secret
    mesh: MeshConfig = field(default_factory=MeshConfig)
    grpc_port: int = 15012  # Istio's for the same; 0: an ephemeral one
    metrics_port: int = 15020  # 0: an ephemeral one
    health_port: int = 15021  # 0: an ephemeral one


def cgroup2_root(mounts: Path = Path("/proc/mounts")) -> Path:
    """Where cgroup v2 is mounted, be it alone or beside v1. Raises LookupError, with the remedy, when it is not."""
    for line in mounts.read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(where)
    raise LookupError("no cgroup v2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


def own_cgroup(root: Path, process: Path = Path("/proc/self/cgroup")) -> Path:
    """This process's cgroup v2 directory."""
    for line in process.read_text().splitlines():
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":
            return root / path.lstrip("/")
    return root


def node_name() -> str:
    """The host's name, which kubelet uses as node name unless told otherwise."""
    return os.uname().nodename
