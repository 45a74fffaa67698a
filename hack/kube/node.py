"""One node: a machine of its own as far as it can tell, with containerd, kubelet and kube-proxy on it.

It has its own network, mount, PID, UTS and cgroup namespaces; its first process holds them, and all dies with that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ambient.lab import cgroups as processes
from ambient.lab import linux
from hack.kube import components, config, network
from hack.kube.cgroups import Hierarchies
from hack.kube.errors import ClusterError
from hack.kube.layout import Node
from hack.kube.pki import Authority
from hack.kube.service import Service

CLONE_NEWCGROUP = 0x02000000
INIT_S = 10.0
CONTAINERD_S = 30.0
SCRIPT = Path(__file__).with_name("node.sh")
PROGRAMS = Path("/opt/kubernetes")  # inside a node
CNI_SOURCE = Path("/usr/lib/cni")  # where Debian keeps the plugins
LINKS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")  # into /usr
EMPTY = (
    "dev",
    "home",
    "opt/cni/bin",
    "opt/kubernetes",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    "var/lib",
    "var/log",
)


class RunningNode:
    """Starts, ends and enters one node. Holds nothing open: any process may make one of these for a node that is up."""

    def __init__(self, node: Node, hierarchies: Hierarchies, others: Sequence[Node]) -> None:
        self.node = node
        self._hierarchies = hierarchies
        self._others = others
        self._cgroup = hierarchies.top / node.name
        self._init = self._service("init")

    def _service(self, program: str) -> Service:
        # Not below the pods' cgroups, and never in the node's own: v2 wants processes in leaves only.
        return Service(f"{self.node.name}-{program}", self._cgroup / program)

    @property
    def containerd(self) -> Service:
        return self._service("containerd")

    @property
    def kubelet(self) -> Service:
        return self._service("kubelet")

    @property
    def proxy(self) -> Service:
        return self._service("kube-proxy")

    def install(self, authority: Authority) -> None:
        """Fill the node's disk: its part of the machine's files, its configuration, its certificates."""
        root = self.node.root
        for directory in EMPTY:
            (root / directory).mkdir(parents=True)
        for link in LINKS:
            if Path("/", link).is_symlink():
                (root / link).symlink_to(Path("/", link).readlink())
        shutil.copytree("/etc", root / "etc", symlinks=True)
        shutil.rmtree(root / "etc/cni", ignore_errors=True)
        for plugin in config.CNI_PLUGINS:
            shutil.copy2(CNI_SOURCE / plugin, root / "opt/cni/bin" / plugin)
        shutil.copy2(SCRIPT.with_name("without-dad.sh"), root / "opt/cni/bin" / config.WITHOUT_DAD)
        for path, text in self._files(authority).items():
            place = root / path.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def _files(self, authority: Authority) -> dict[Path, str]:
        """What this node has that the machine has not, by its path in the node."""
        name, ca = self.node.name, authority.pair.certificate
        serving = authority.issue(f"system:node:{name}", groups=["system:nodes"], names=[name, *self.node.ips])
        proxy = authority.issue("system:kube-proxy")
        return {
            Path("/etc/hostname"): f"{name}\n",
            Path("/etc/resolv.conf"): "",
            config.CNI_CONFIG: config.conflist(self.node),
            config.CONTAINERD_CONFIG: config.containerd(),
            config.KUBELET_CONFIG: json.dumps(config.kubelet(), indent=1),
            config.KUBELET_KUBECONFIG: config.kubeconfig(ca, serving),
            config.KUBELET_DIR / "pki/ca.crt": ca.decode(),
            config.KUBELET_DIR / "pki/kubelet.crt": serving.certificate.decode(),
            config.KUBELET_DIR / "pki/kubelet.key": serving.key.decode(),
            config.PROXY_DIR / "config.json": json.dumps(config.kube_proxy(self.node), indent=1),
            config.PROXY_DIR / "kubeconfig": config.kubeconfig(ca, proxy),
        }

    def boot(self) -> None:
        """The namespaces and their first process; then containerd, which must be there before images can be loaded."""
        network.add_node(self.node, self._others)
        self._start_init()
        self._start(self.containerd, ["containerd", "--config", config.CONTAINERD_CONFIG])

    def start_kubernetes(self) -> None:
        """kubelet and kube-proxy. Returns when they are started, not when the node is Ready."""
        ready = lambda: self.run(["ctr", "version"], check=False).returncode == 0  # noqa: E731 - asked until the deadline
        self.containerd.until("an answer on its socket", ready, within=CONTAINERD_S)
        self._start(self.kubelet, [PROGRAMS / "kubelet", *config.kubelet_options(self.node)])
        self._start(self.proxy, [PROGRAMS / "kube-proxy", f"--config={config.PROXY_DIR}/config.json"])

    def kill(self) -> None:
        """As if the power went: every process at once, pods' included; the network and what was in memory is gone."""
        self._hierarchies.remove(self.node.name)
        network.remove_node(self.node)

    def _start_init(self) -> None:
        directories = self._hierarchies.add(self.node.name)

        def become() -> None:
            """In the new process: the node's cgroups become the roots of all that it will see of cgroups."""
            for directory in directories:
                processes.join(directory)
            linux.unshare(CLONE_NEWCGROUP)

        ours, theirs = os.pipe()
        try:
            self._init.start(
                [SCRIPT, self.node.name, self.node.root, components.built(), str(theirs)],
                enter=[
                    *network.into(self.node.netns),
                    *("unshare", "--mount", "--pid", "--uts", "--fork", "--propagation", "private", "--"),
                ],
                prepare=become,
                keep=[theirs],
            )
        finally:
            os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            if not pipe.read(1):  # the end of the file: it ended
                raise ClusterError(f"{self.node.name} could not be made. {self._init.said()}")
        self._hierarchies.delegate(directories[0])

    def _start(self, service: Service, command: Sequence[str | Path]) -> None:
        def become() -> None:
            for directory in self._hierarchies.add(self.node.name)[1:]:
                processes.join(directory)

        service.start(command, enter=self.entrance(), prepare=become)

    @property
    def init(self) -> int:
        """The node's first process: the machine's number of it. Raises ClusterError when the node is not up."""
        found = next((pid for pid in self._init.pids() if _is_first(pid)), None)
        if found is None:
            raise ClusterError(f"{self.node.name} is not up")
        return found

    def entrance(self) -> list[str]:
        """The words before a command that is to run on this node. Raises ClusterError when the node is not up."""
        return ["nsenter", f"--target={self.init}", "--net", "--mount", "--pid", "--uts", "--cgroup", "--"]

    def run(self, command: Sequence[str], *, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on the node, to its end. Raises ClusterError when it fails, unless told not to check."""
        done = subprocess.run([*self.entrance(), *command], input=text, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise ClusterError(f"{' '.join(command)} on {self.node.name} failed: {done.stderr.strip() or done.stdout}")
        return done

    def load(self, archive: Path) -> None:
        """Give the node an image, as an OCI or Docker archive."""
        with archive.open("rb") as file:
            command = [
                *self.entrance(),
                "ctr",
                "--namespace=k8s.io",
                "images",
                "import",
                "--snapshotter=overlayfs",
                "-",
            ]
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"{archive} could not be loaded into {self.node.name}: {done.stderr.strip()}")


def _is_first(pid: int) -> bool:
    """Whether a process is the first of a PID namespace below ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return len(numbers) > 1 and numbers[-1] == "1"
