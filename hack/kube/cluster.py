"""A real Kubernetes on one machine: the API server and its kin, and nodes out of namespaces. What tests hold in hand.

Every verb works from what is on the machine, not from what this process did before: a cluster that another process
brought up is used and ended just the same.
"""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hack.kube import cgroups, components, config, dns, layout, network
from hack.kube.controlplane import ControlPlane
from hack.kube.errors import ClusterError
from hack.kube.node import RunningNode
from hack.kube.pki import Authority

NODE_READY_S = 60.0
LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.UTC)


class Cluster:
    def __init__(self, nodes: int = 2) -> None:
        self._hierarchies = cgroups.here()
        all_ = layout.nodes(nodes)
        self.control_plane = ControlPlane(self._hierarchies)
        self.nodes = {
            node.name: RunningNode(node, self._hierarchies, [other for other in all_ if other != node]) for node in all_
        }

    def up(self, images: Iterable[Path] = ()) -> None:
        """Bring it up with these images (OCI archives) on every node; returns when all nodes are Ready."""
        if layout.STATE.exists():
            raise ClusterError(f"there is a cluster, or what is left of one ({layout.STATE}): make kube-down")
        components.built()
        authority = Authority.new()
        self.control_plane.install(authority)
        for node in self.nodes.values():
            node.install(authority)
        network.add_control_plane([node.node for node in self.nodes.values()])
        self._hierarchies.add()
        self._hierarchies.delegate(self._hierarchies.top)
        for node in self.nodes.values():
            node.boot()
        self.control_plane.start()
        self.apply([*dns.objects(), *(config.node_object(node.node) for node in self.nodes.values())])
        for node in self.nodes.values():
            node.start_kubernetes()
        for image in [components.built() / "pause.tar", *images]:
            self.load(image)
        for name in self.nodes:
            self.await_ready(name)
        self.control_plane.await_dns()

    def await_ready(self, name: str, since: datetime.datetime = LONG_AGO) -> None:
        """Return when the node's kubelet has reported it Ready, not before `since`: older news is of another life."""

        def ready() -> bool:
            conditions = self.get("node", name)["status"].get("conditions", ())
            return any(
                row["type"] == "Ready"
                and row["status"] == "True"
                and datetime.datetime.fromisoformat(row["lastHeartbeatTime"]) >= since
                for row in conditions
            )

        self.nodes[name].kubelet.until("a Ready node", ready, within=NODE_READY_S)

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """Run kubectl as the cluster's admin; its output. Raises ClusterError with what it complained of."""
        command = [str(layout.KUBECTL), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """What `kubectl get` finds, as Python has it."""
        return json.loads(self.kubectl("get", "--output=json", *arguments))

    def apply(self, objects: Sequence[config.JSON], *options: str) -> None:
        """Server-side apply, with further options of kubectl's."""
        self.kubectl("apply", "--server-side", "--filename=-", *options, text=_listed(objects))

    def delete(self, objects: Sequence[config.JSON]) -> None:
        """Return when they are gone; those that are gone already do no harm."""
        self.kubectl("delete", "--ignore-not-found", "--filename=-", text=_listed(objects))

    def load(self, image: Path) -> None:
        """Give every node an image."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.load(image), self.nodes.values()))

    def restart(self, name: str) -> None:
        """Kill everything on a node and start it again, as after a power cut; returns when it is Ready again."""
        if not layout.STATE.exists():
            raise ClusterError("there is no cluster: make kube-up")
        self.nodes[name].kill()
        self.power_on(name)

    def power_on(self, name: str) -> None:
        """Start a node that was killed; returns when it is Ready again."""
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)  # the API knows whole seconds
        self.nodes[name].boot()
        self.nodes[name].start_kubernetes()
        self.await_ready(name, now)


def _listed(objects: Sequence[config.JSON]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def down() -> bool:
    """End and remove whatever there is of a cluster, whoever was killed before; False when there was nothing.

    May be repeated after a failure: the state directory, which `up` asks for, goes last.
    """
    hierarchies = cgroups.here()
    had = layout.STATE.exists() or hierarchies.top.exists()
    hierarchies.remove()
    for netns in network.ours():
        network.remove_netns(netns)
    if layout.STATE.exists():
        shutil.rmtree(layout.STATE)
    return had
