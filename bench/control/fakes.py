"""A real API server behind which kwok plays as many nodes and pods as wanted: up, furnished, changed, down.

Objects are those of `objects`, as far as an API server takes them: what it says itself of each (uid, version, managed
fields) it says, pods' addresses and conditions come from kwok. Root, and the machine's one cluster: see hack.kube.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from ambient.control import api
from ambient.control.api import Kind, Patch
from ambient.lab import linux
from ambient.sources import kubernetes
from bench.control import objects, wanted
from hack.kube import Cluster, cgroups, components, down, layout
from hack.kube.controlplane import ADMIN
from hack.kube.service import Service

INSTALLED = Path(__file__).parents[2] / "daemonset.yaml"
KINDS = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "Role",
    "RoleBinding",
    "ServiceAccount",
}
NAMESPACE, CONTROL, AGENT = "ambient-system", "ambient-control", "ambient-agent"
AUDIENCE = "ambient-control"
POLICIES = 500
WRITERS = 32  # objects under way at once
RUNNING_S = 900.0
LOOK_S = 1.0
NAMESPACES = Kind("Namespace", "namespaces", namespaced=False)
NODES = Kind("Node", "nodes", namespaced=False)
ACCOUNTS = Kind("ServiceAccount", "serviceaccounts")
SERVICES = Kind("Service", "services")
POLICY = Kind("AuthorizationPolicy", "authorizationpolicies", "ambient.dev/v1alpha1")


class Fakes:
    """What is there while `up` lasts."""

    def __init__(self, cluster: Cluster, pods: int) -> None:
        self.cluster = cluster
        self.pods, self.services = pods, pods // 5
        self._runner = asyncio.Runner()
        self._api = api.LightkubeApi(kubernetes.connect(layout.kubeconfig(ADMIN)))
        self._ready: dict[int, bool] = {}

    def service(self, name: str) -> Service:
        """A program beside the API server, in its network."""
        return Service(name, cgroups.here().top / "control-plane" / name)

    def furnish(self) -> None:
        """Create everything, and return when every pod is Running."""
        installed = [body for body in yaml.safe_load_all(INSTALLED.read_text()) if body]
        self.cluster.apply([body for body in installed if body["kind"] in KINDS])
        kwok = [str(components.build_kwok()), f"--kubeconfig={layout.kubeconfig(ADMIN)}", "--manage-all-nodes"]
        self._create(NAMESPACES, map(wanted.namespace, range(objects.NAMESPACES)))
        self._create(NODES, map(wanted.node, range(objects.NODES)))
        self.service("kwok").start(kwok)
        self._create(ACCOUNTS, map(wanted.account, range(self.services)))
        self._create(SERVICES, (wanted.service(number, self.services) for number in range(self.services)))
        self._create(POLICY, map(wanted.policy, range(POLICIES)))
        self._create(
            api.POD,
            [wanted.agents_pod(AGENT, NAMESPACE), *(wanted.pod(number, self.services) for number in range(self.pods))],
        )
        deadline = time.monotonic() + RUNNING_S
        while waiting := self._pending():
            if time.monotonic() > deadline:
                raise TimeoutError(f"a pod is not Running after {RUNNING_S:g} s: {waiting}")
            time.sleep(LOOK_S)

    def token(self, account: str, file: Path, *options: str) -> Path:
        """A ServiceAccount's token, in a file."""
        words = ("--namespace", NAMESPACE, "create", "token", account, "--duration=4h", *options)
        file.write_text(self.cluster.kubectl(*words))
        return file

    def agents_token(self, file: Path) -> Path:
        """Of the agent on the first node, for the control plane."""
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={AGENT}")
        return self.token(AGENT, file, f"--audience={AUDIENCE}", *bound)

    def roots(self) -> str:
        """What a control plane publishes for agents to trust it by; awaited."""
        where = ("--namespace", NAMESPACE)
        self.cluster.kubectl(*where, "wait", "--for=create", "configmap/ambient-root")
        return str(self.cluster.get(*where, "configmap", "ambient-root")["data"]["roots.pem"])

    def change(self, kind: str, number: int) -> float:
        """Patch the pod or the policy of this number, which is then another than it was; when that was begun."""
        begun = time.monotonic()
        {"pod": self._change_pod, "policy": self._change_policy}[kind](number)
        return begun

    def _change_pod(self, number: int) -> None:
        number %= self.pods
        ready = self._ready[number] = not self._ready.get(number, True)
        metadata = wanted.name_of(objects.pod(number, self.services))
        status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        self._runner.run(self._api.patch(api.POD, {"metadata": metadata, "status": status}, Patch.MERGE, status=True))

    def _change_policy(self, number: int) -> None:
        policy = objects.policy(number % POLICIES)
        policy["spec"]["rules"][0]["to"][0]["operation"]["ports"] = [str(1 + number % 60_000)]
        changed = {"metadata": wanted.name_of(policy), "spec": policy["spec"]}
        self._runner.run(self._api.patch(POLICY, changed, Patch.MERGE))

    def _create(self, kind: Kind, some: Iterable[objects.Object]) -> None:
        rest = iter(some)

        async def write() -> None:
            for body in rest:  # whose turn it is takes the next
                await self._api.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, **body})

        async def write_all() -> None:
            await asyncio.gather(*(write() for _ in range(WRITERS)))

        self._runner.run(write_all())

    def close(self) -> None:
        self._runner.run(self._api.aclose())
        self._runner.close()

    def _pending(self) -> str:
        """One of those that do not run yet, if there is any."""
        query = "/api/v1/pods?limit=1&fieldSelector=status.phase%3DPending"
        found = json.loads(self.cluster.kubectl("get", f"--raw={query}"))["items"]
        return str(found[0]["metadata"]["name"]) if found else ""


@contextlib.contextmanager
def up(pods: int) -> Iterator[Fakes]:
    """The calling thread is in the cluster's network in the `with` block."""
    cluster = Cluster(nodes=0)
    try:
        cluster.up()
        network = linux.inside_netns(layout.NETNS_DIR / layout.CONTROL_PLANE)
        with network, contextlib.closing(Fakes(cluster, pods)) as fakes:
            fakes.furnish()
            yield fakes
    finally:
        down()
