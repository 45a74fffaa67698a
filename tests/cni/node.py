"""A node with an agent, Debian's ptp plugin as its network with ours behind it, and pods that start step by step."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ambient.capture import cgroups, netns
from ambient.lab.process import Entrance
from ambient.observe import client as admin
from tests.capture import apps, pods
from tests.cni.runtime import BINARY, VERSION, Attachment, Chain, call

T = TypeVar("T")
PROGRAMS = {"ptp": Path("/usr/lib/cni/ptp"), "ambient-cni": BINARY}
NODE = "node1"


def eventually(what: str, found: Callable[[], T], *, within: float = 10.0) -> T:
    until = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < until, f"not within {within:g} s: {what}; last seen: {value!r}"
        time.sleep(0.02)
    return value


def dial(channel: socket.socket, to: str, port: int) -> str:
    """What the other end says, or the error's class name."""
    del channel
    try:
        with socket.create_connection((to, port), pods.DEADLINE / 2) as sock:
            return sock.recv(100).decode()
    except OSError as error:
        return type(error).__name__


class Sandbox:
    """A pod as it is when its network is made: a network namespace and a cgroup, no process."""

    def __init__(self, node: Node, name: str, namespace: str, uid: str) -> None:
        self.node, self.key, self.uid = node, f"{namespace}/{name}", uid
        self.netns = node.new_netns()
        self.attachment = Attachment(
            container=self.netns, netns=f"/run/netns/{self.netns}", namespace=namespace, name=name, uid=uid
        )
        self.cgroup = node.base.cgroup / f"pod{uid}"
        self.cgroup.mkdir(exist_ok=True)
        self._cookie = ""

    def add(self) -> bytes:
        return self.node.chain.add(self.attachment)

    def delete(self) -> None:
        self.node.chain.delete(self.attachment)

    @property
    def cookie(self) -> str:
        """Of its network namespace, as the kernel pins it."""
        if not self._cookie:
            with contextlib.closing(netns.open(f"/run/netns/{self.netns}")) as space:
                self._cookie = str(space.cookie)
        return self._cookie

    def rules(self) -> str:
        return pods.sh(f"ip -n {self.netns} rule")

    def remove_netns(self) -> None:
        pods.sh(f"ip netns del {self.netns}")
        self.node.spaces.remove(self.netns)

    def start(self, function: Callable[..., Any], *arguments: Any) -> pods.Remote:
        """A process of the pod: the first one, if the test started none before. It ends with the node."""

        def enter() -> None:
            pods.join(self.cgroup)
            pods._enter(f"/run/netns/{self.netns}")

        remote = pods.Remote(function, arguments, enter)
        self.node.remotes.append(remote)
        return remote

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What such a process says first; it is ended then."""
        remote = self.start(function, *arguments)
        try:
            return remote.receive()
        finally:
            remote.finish()

    def dials_out(self) -> str:
        """What a first process meets at a server that the World does not know: "app", or the error's name."""
        return str(self.run(dial, self.node.server_ip, self.node.server_port))


class Node:
    """`source`: the manifests the agent reads. Everything is gone after close()."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = pods.Node()
        self.spaces: list[str] = []
        self.remotes: list[pods.Remote] = []
        self.source, self.run_dir, self.bpffs = folder / "source", folder / "run", folder / "bpf"
        self.source.mkdir()
        pods.mount_bpffs(self.bpffs)
        (self.base.cgroup / "agent").mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "agent.log"
        self.bin_dir, self.conf_dir = folder / "cni-bin", folder / "cni-conf"
        self.options: list[str] = []
        self.prefix: list[str] = []  # words before the agent's command
        ipam = {"type": "host-local", "ranges": [[{"subnet": "10.78.1.0/24"}]], "dataDir": str(folder / "ipam")}
        ipam["routes"] = [{"dst": "0.0.0.0/0"}]  # type: ignore[assignment]
        ours = {"type": "ambient-cni", "runDir": str(self.run_dir), "exempt": "ambient-system kube-system"}
        inside = ("ip", "netns", "exec", self.base.name)
        self.chain = Chain([{"type": "ptp", "ipam": ipam}, ours], PROGRAMS, inside)
        self.base.ip("addr add 192.0.2.1/32 dev lo")
        self.server_ip, self.server_port = "192.0.2.1", 8080
        self._server = self.base.start(apps.serve, self.server_ip, self.server_port)
        assert self._server.receive() == "listening"
        self.write({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})

    # The World

    def write(self, *manifests: dict[str, Any]) -> None:
        """As a directory source wants it: a file appears whole."""
        for manifest in manifests:
            path = self.source / f"{_name(manifest)}.json"
            temporary = self.folder / "manifest.tmp"
            temporary.write_text(json.dumps(manifest))
            temporary.rename(path)

    def pod(self, name: str, namespace: str = "shop", *, on: str = NODE, ip: str = "") -> dict[str, Any]:
        manifest: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": self.uid(name)},
            "spec": {"nodeName": on, "serviceAccountName": name, "containers": [{"name": "main"}]},
        }
        if ip:
            manifest["status"] = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
        return manifest

    def uid(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{os.getpid()}"))

    def sandbox(self, name: str, namespace: str = "shop") -> Sandbox:
        return Sandbox(self, name, namespace, self.uid(name))

    def new_netns(self) -> str:
        name = f"{self.base.name}s{len(self.spaces)}x{time.monotonic_ns() % 100000}"
        pods.sh(f"ip netns add {name} && ip -n {name} link set lo up")
        self.spaces.append(name)
        return name

    # The agent

    def with_installer(self) -> None:
        """The agent is to put the plugin into this node's directories, which have a network already."""
        for folder in (self.bin_dir, self.conf_dir):
            folder.mkdir()
        self.own_config.write_text(
            json.dumps({"cniVersion": VERSION, "name": "pods", "plugins": self.chain.plugins[:1]})
        )
        self.options = ["--cni-bin-dir", str(self.bin_dir), "--cni-conf-dir", str(self.conf_dir)]

    @property
    def own_config(self) -> Path:
        return self.conf_dir / "10-pods.conflist"

    def use_installed(self) -> None:
        """From here on the chain is what a runtime finds: the first configuration by name, and its programs."""
        chosen = min(self.conf_dir.glob("*.conflist"))
        programs = {**PROGRAMS, "ambient-cni": self.bin_dir / "ambient-cni"}
        self.chain = Chain(json.loads(chosen.read_text())["plugins"], programs, self.chain.prefix)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`ambient ...` on this node."""
        return subprocess.run(
            [sys.executable, "-m", "ambient", *words], capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, *, ready: bool = True) -> None:
        where = Entrance(cgroup=self.base.cgroup / "agent", netns=Path(f"/run/netns/{self.base.name}"))
        options = {
            "--node": NODE,
            "--source": self.source,
            "--ca-dir": self.folder / "ca",
            "--cgroup": self.base.cgroup,
            "--bpffs": self.bpffs,
            "--run-dir": self.run_dir,
            "--engine-threads": 1,
        }
        words = [sys.executable, "-m", "ambient", "agent", *(str(word) for pair in options.items() for word in pair)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *words, *self.options], preexec_fn=where, stdout=log, stderr=log, start_new_session=True
            )
        if ready:
            eventually("the agent is ready", self.is_ready, within=15)

    def is_ready(self) -> bool:
        try:
            return bool(self.status()["ready"])
        except (admin.Unreachable, admin.Refused):
            return False

    def status(self) -> Any:
        return admin.call(self.run_dir / "admin.sock", "status", deadline_s=5.0)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, and wait for that."""
        self.send(number)
        assert self.process is not None
        self.process.wait(20)
        self.process = None

    def ours(self, pod: Attachment, command: str, result: bytes = b"null") -> subprocess.CompletedProcess[bytes]:
        """Our plugin alone."""
        config = {"cniVersion": VERSION, "name": "pods", **self.chain.plugins[1], "prevResult": json.loads(result)}
        return call(BINARY, pod.environment(command), json.dumps(config).encode(), self.chain.prefix)

    def address_of(self, key: str) -> str:
        """As the agent has it."""
        rows = admin.call(self.run_dir / "admin.sock", "workloads", deadline_s=5.0)
        return next((" ".join(row["addresses"]) for row in rows if f"{row['namespace']}/{row['name']}" == key), "")

    def records(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def pinned(self) -> list[str]:
        """Socket lookups in the kernel: one for each captured network namespace."""
        return sorted(path.name for path in (self.bpffs / "ambient-v1" / "lookup").glob("*"))

    def close(self) -> None:
        for remote in self.remotes:
            remote.finish()
        if self.process is not None:
            self.kill()
        for cgroup in cgroups.below(self.base.cgroup):
            for pid in cgroups.processes(cgroup):
                os.kill(pid, signal.SIGKILL)  # the engine; whatever a failed test left in a pod
        eventually("nothing runs", lambda: not any(cgroups.processes(c) for c in cgroups.below(self.base.cgroup)))
        for name in self.spaces:
            pods.sh(f"ip netns del {name}")
        self.base.close()
        pods.unmount_bpffs(self.bpffs)


def _name(manifest: dict[str, Any]) -> str:
    metadata = manifest["metadata"]
    return "-".join([manifest["kind"], metadata.get("namespace", ""), metadata["name"]]).lower()
