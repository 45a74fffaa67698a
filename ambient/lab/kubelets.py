"""Nodes and pods as they are: makes them be what the objects say. Wires, starts and ends; carries no traffic."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from ambient.lab import addressing, cgroups, names, network
from ambient.lab.addressing import NodeAddresses, PodNumbers
from ambient.lab.agents import Agent
from ambient.lab.cluster import Objects
from ambient.lab.layout import Layout
from ambient.lab.manifests import Key
from ambient.lab.pod import Pod, unwire
from ambient.lab.state import State


class Kubelets:
    """Every node and pod of one lab.

    prepare() before the objects are published, start() after: whoever reads of a pod finds its netns, and no program
    runs before its pod is known.
    """

    def __init__(
        self, layout: Layout, state: State, *, agents: tuple[str, ...] | None, on_change: Callable[[], None]
    ) -> None:
        self.nodes: dict[str, NodeAddresses] = {}
        self.pods: dict[Key, Pod] = {}
        self.agents: dict[str, Agent] = {}
        self._numbers: dict[str, PodNumbers] = {}
        self._layout = layout
        self._state = state
        self._agent_command = agents
        self._on_change = on_change
        self._net = network.Network(layout)
        self._services: dict[str, str] = {}  # node -> the ruleset it has

    def make_fabric(self) -> None:
        self._state.owns_netns(self._layout.fabric_netns)
        self._net.add_fabric()

    async def prepare(self, objects: Objects) -> None:
        """End what is gone; wire what is new."""
        living = {objects[key]["metadata"]["uid"] for key in objects if key.kind == "Pod"}
        for pod in [pod for pod in self.pods.values() if pod.uid not in living]:
            await self._end_pod(pod)
        wanted = {key.name for key in objects if key.kind == "Node"}
        for name in sorted(self.nodes.keys() - wanted):
            await self._end_node(name)
        for name in sorted(wanted - self.nodes.keys()):
            self._add_node(name)
        for key in sorted(objects):
            if key.kind == "Pod" and key not in self.pods:
                self._add_pod(key, objects)

    def start(self) -> None:
        """Start agents, and the containers of the pods that are new."""
        if self._agent_command is not None:
            for node in sorted(self.nodes.keys() - self.agents.keys()):
                self.agents[node] = Agent(self._layout, node, self._agent_command)
                self.agents[node].start()
        for pod in self.pods.values():
            if not pod.containers:
                pod.start()

    def set_services(self, rulesets: Mapping[str, str]) -> None:
        """`rulesets`: by node."""
        for node, ruleset in rulesets.items():
            if self._services.get(node) != ruleset:
                self._net.set_services(node, ruleset)
                self._services[node] = ruleset

    def unready(self) -> list[Pod]:
        """The pods that are to become ready and are not, in order."""
        return [self.pods[key] for key in sorted(self.pods) if self.pods[key].why]

    def node_status(self, name: str) -> dict[str, Any]:
        """Kubernetes' node status."""
        addresses = [{"type": "InternalIP", "address": str(ip)} for ip in self.nodes[name].ips]
        return {
            "addresses": [*addresses, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }

    def node_spec(self, name: str) -> dict[str, Any]:
        """What Kubernetes' controllers write there."""
        return {"podCIDRs": [str(network) for network in self.nodes[name].pod_networks]}

    def _add_node(self, name: str) -> None:
        node = addressing.free_node([other.index for other in self.nodes.values()])
        self._state.owns_netns(self._layout.node_netns(name))
        self._net.add_node(name, node, self.nodes)
        self._layout.node_cgroup(name).mkdir()
        self._layout.node_dir(name).mkdir(parents=True)
        self.nodes[name] = node
        self._numbers[name] = PodNumbers()

    async def _end_node(self, name: str) -> None:
        if name in self.agents:
            await self.agents.pop(name).stop()
        await asyncio.to_thread(cgroups.kill, self._layout.node_cgroup(name))
        cgroups.remove(self._layout.node_cgroup(name))
        node = self.nodes.pop(name)
        self._net.remove_node(name, node, self.nodes)
        self._state.lost_netns(self._layout.node_netns(name))
        self._services.pop(name, None)
        shutil.rmtree(self._layout.node_dir(name))

    def _add_pod(self, key: Key, objects: Objects) -> None:
        manifest = objects[key]
        node_name = manifest["spec"]["nodeName"]
        node = self.nodes[node_name]
        number = None if manifest["spec"].get("hostNetwork") else self._numbers[node_name].take()
        ips = node.ips if number is None else addressing.pod_ips(node, number)
        pod = Pod(self._layout, key, manifest, node=node, ips=ips, number=number, on_change=self._on_change)
        if number is not None:
            self._state.owns_netns(pod.netns)
            self._net.add_pod(key.pod, ips, node_name, node)
        self.pods[key] = pod
        pod.make_sandbox(names.hosts(objects, {**manifest, "status": pod.status()}), names.resolv_conf(key.namespace))

    async def _end_pod(self, pod: Pod) -> None:
        await pod.stop()
        unwire(self._net, pod)
        if pod.number is not None:
            self._numbers[pod.node_name].give_back(pod.number)
            self._state.lost_netns(pod.netns)
        del self.pods[pod.key]
