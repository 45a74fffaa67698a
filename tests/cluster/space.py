"""A namespace of the cluster, and what a test does in it as its user."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ambient.lab import cgroups as processes
from hack.kube import Cluster, ClusterError, cgroups, layout
from tests.cluster.manifests import PUPPET, Manifest
from tests.mesh.puppets import Puppet

READY_S = 60


class Space:
    """Everything is `kubectl --namespace`: what works here works for people."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def create(self, **labels: str) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": labels}}
        self.cluster.apply([body])
        # Pods are refused until their ServiceAccount is there.
        self.kubectl("wait", "--for=create", f"--timeout={READY_S}s", "serviceaccount/default")

    def kubectl(self, *arguments: str, text: str = "") -> str:
        return self.cluster.kubectl("--namespace", self.name, *arguments, text=text)

    def get(self, kind: str, name: str) -> Any:
        return self.cluster.get("--namespace", self.name, kind, name)

    def apply(self, *manifests: Manifest) -> None:
        self.cluster.apply(manifests, "--namespace", self.name)

    def run(self, *pods: Manifest) -> None:
        """Apply pods and return when they are Ready."""
        self.apply(*pods)
        self.await_ready(*(pod["metadata"]["name"] for pod in pods))

    def await_ready(self, *pods: str) -> None:
        names = [f"pod/{pod}" for pod in pods]
        try:
            self.kubectl("wait", "--for=condition=Ready", f"--timeout={READY_S}s", *names)
        except ClusterError as error:
            raise AssertionError(f"{error}\n{self.kubectl('describe', *names)}") from error

    def ips(self, pod: str) -> tuple[str, str]:
        """Its IPv4 and its IPv6 address."""
        four, six = (row["ip"] for row in self.get("pod", pod)["status"]["podIPs"])
        return four, six

    def captured(self) -> set[str]:
        """The pods that are captured, as their annotations say."""
        rows = self.cluster.get("--namespace", self.name, "pods")["items"]
        said = {row["metadata"]["name"]: row["metadata"].get("annotations", {}) for row in rows}
        return {name for name, annotations in said.items() if annotations.get("ambient.dev/captured") == "true"}

    def exec(self, pod: str, *command: str) -> str:
        return self.kubectl("exec", pod, "--", *command)

    def container(self, pod: str) -> tuple[int, Path]:
        """The first process of the pod's only container, and its cgroup."""
        found = self.get("pod", pod)
        pods = cgroups.here().top / found["spec"]["nodeName"] / "kubepods"
        for procs in pods.glob(f"**/pod{found['metadata']['uid']}/*/cgroup.procs"):
            for pid in procs.read_text().split():
                if Path(f"/proc/{pid}/cmdline").read_text() != "/pause\0":
                    return int(pid), procs.parent
        raise AssertionError(f"no process of {self.name}/{pod} below {pods}")

    @contextlib.contextmanager
    def puppet(self, pod: str, *, without_api: bool = False) -> Iterator[Puppet]:
        """`without_api`: enter the pod as a container runtime does, so that the puppet outlives the API server."""
        puppet = ClusterPuppet(self, pod, without_api)
        try:
            yield puppet
        finally:
            puppet.stop()


class ClusterPuppet(Puppet):
    """The mesh tests' puppet in a pod of the cluster."""

    def __init__(self, space: Space, pod: str, without_api: bool) -> None:
        self.pod = pod
        join = None
        if without_api:
            pid, cgroup = space.container(pod)
            join = functools.partial(processes.join, cgroup)
            enter = ["nsenter", f"--target={pid}", "--net", "--mount", "--pid", "--uts", "--ipc", "--"]
        else:
            enter = [str(layout.KUBECTL), "--namespace", space.name, "exec", "--stdin", pod, "--"]
        self._process = subprocess.Popen(
            [*enter, *PUPPET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, preexec_fn=join
        )
        self._unread = b""
        self._answer(20.0)
