"""What `ambient lab status` says: one flat picture of nodes, pods and services. Asks, changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from ambient.lab import network
from ambient.lab.cluster import Objects, vips
from ambient.lab.kubelets import Kubelets
from ambient.lab.layout import Layout, node_link, pod_link
from ambient.lab.manifests import Key
from ambient.lab.pod import Pod


async def status(layout: Layout, objects: Objects, kubelets: Kubelets) -> dict[str, Any]:
    """{lab, mesh, fabric, nodes: {name: ...}, pods: {ns/name: ...}, services: {ns/name: ...}}, sorted.

    What only a pod's agent knows (enrolled, captured) is null while that agent does not answer, and without a mesh.
    """
    answers = await asyncio.gather(*(agent.status() for agent in kubelets.agents.values()))
    agents = dict(zip(kubelets.agents, answers, strict=True))
    return {
        "lab": layout.lab,
        "mesh": bool(kubelets.agents),
        "state": str(layout.state),
        "fabric": {"netns": layout.fabric_netns, "bridge": network.BRIDGE},
        "nodes": {name: _node(layout, kubelets, name, agents.get(name)) for name in sorted(kubelets.nodes)},
        "pods": {key.pod: _pod(objects, kubelets, key, agents) for key in sorted(kubelets.pods)},
        "services": {
            key.pod: {
                "vips": [str(ip) for ip in vips(objects[key])],
                "ports": [row["port"] for row in objects[key]["spec"].get("ports") or ()],
            }
            for key in sorted(objects)
            if key.kind == "Service"
        },
    }


def _node(layout: Layout, kubelets: Kubelets, name: str, said: dict[str, Any] | None) -> dict[str, Any]:
    node = kubelets.nodes[name]
    agent = kubelets.agents.get(name)
    return {
        "underlay": [str(ip) for ip in node.ips],
        "pod_networks": [str(net) for net in node.pod_networks],
        "netns": layout.node_netns(name),
        "interface": network.UPLINK,
        "fabric_port": node_link(node.index),
        "cgroup": str(layout.node_cgroup(name)),
        "admin": str(layout.admin(name)),
        "agent_pid": agent.pid if agent else 0,
        "agent_restarts": max(0, agent.restarts) if agent else 0,
        "engine_pid": (said or {}).get("engine_pid"),
        "ready": bool((said or {}).get("ready")),
        "blockers": (said or {}).get("blockers", []) if said or not agent else ["agent does not answer"],
        "not_direct": (said or {}).get("not_direct", ""),
    }


def entrance(pod: Pod) -> dict[str, Any]:
    """Where a program of this pod lives, and with which environment."""
    return {"cgroup": str(pod.cgroup), "netns": pod.netns, "pause_pid": pod.pause_pid, "env": pod.environment()}


def _pod(objects: Objects, kubelets: Kubelets, key: Key, agents: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    pod = kubelets.pods[key]
    said = ((agents.get(pod.node_name) or {}).get("pods") or {}).get(key.pod, {})
    return {
        "node": pod.node_name,
        "ips": [str(ip) for ip in pod.ips],
        "netns": pod.netns,
        "link": "" if pod.host_network else pod_link(key.pod),
        "uid": pod.uid,
        "cgroup": str(pod.cgroup),
        "pause_pid": pod.pause_pid,
        "phase": pod.status()["phase"],
        "ready": pod.ready,
        "restarts": sum(row.restarts for row in pod.containers),
        "service_account": objects[key]["spec"].get("serviceAccountName", "default"),
        "why": pod.why,
        "enrolled": said.get("enrolled"),
        "captured": said.get("captured"),
        "reason": said.get("reason", ""),
    }
