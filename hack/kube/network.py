"""The wiring: a bridge in the control plane's network namespace, the nodes on it, and routes to each other's pods.

Knows no processes. The nodes' pods are wired by the CNI plugins that config.py names.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from hack.kube import layout
from hack.kube.errors import ClusterError
from hack.kube.layout import Node

UPLINK = "eth0"
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",  # of links that come later; see without-dad.sh
}


def control_plane_lines(nodes: Sequence[Node]) -> list[str]:
    """The bridge. Pods are reached through their nodes: the API server and DNS answer them."""
    return [
        "link set lo up",
        f"link add {layout.BRIDGE} type bridge mcast_snooping 0",
        *(
            f"address add {ip}/{prefix} dev {layout.BRIDGE} nodad"
            for ip, prefix in zip(layout.CONTROL_PLANE_IPS, layout.PREFIXES, strict=True)
        ),
        f"link set {layout.BRIDGE} up",
        *(line for node in nodes for line in _routes(node)),
    ]


def port_lines(node: Node) -> list[str]:
    """In the control plane's namespace: a node is plugged in."""
    return [
        f"link add {node.port} type veth peer name {UPLINK} netns {node.netns}",
        f"link set {node.port} master {layout.BRIDGE} up",
    ]


def node_lines(node: Node, others: Sequence[Node]) -> list[str]:
    """In the node's. What is meant for a pod that is gone is unreachable at once, and does not go round in circles."""
    return [
        "link set lo up",
        *(
            f"address add {ip}/{prefix} dev {UPLINK} nodad"
            for ip, prefix in zip(node.ips, layout.PREFIXES, strict=True)
        ),
        f"link set {UPLINK} up",
        *(f"route add default via {ip}" for ip in layout.CONTROL_PLANE_IPS),
        *(f"route add unreachable {net} metric 4096" for net in node.pod_networks),
        *(line for other in others for line in _routes(other)),
    ]


def _routes(node: Node) -> list[str]:
    return [f"route add {net} via {ip}" for net, ip in zip(node.pod_networks, node.ips, strict=True)]


def add_control_plane(nodes: Sequence[Node]) -> None:
    _add_netns(layout.CONTROL_PLANE)
    _batch(layout.CONTROL_PLANE, control_plane_lines(nodes))


def add_node(node: Node, others: Sequence[Node]) -> None:
    _add_netns(node.netns)
    _batch(layout.CONTROL_PLANE, port_lines(node))
    _batch(node.netns, node_lines(node, others))


def remove_node(node: Node) -> None:
    """The port first, by hand: a namespace lives on for a while after its name is gone, and would keep the link."""
    if (layout.NETNS_DIR / layout.CONTROL_PLANE).exists():
        subprocess.run(["ip", "-n", layout.CONTROL_PLANE, "link", "del", node.port], capture_output=True, check=False)
    remove_netns(node.netns)


def remove_netns(name: str) -> None:
    """Idempotent."""
    if (layout.NETNS_DIR / name).exists():
        _run(["ip", "netns", "del", name])


def ours() -> list[str]:
    """The names of the namespaces that are there."""
    if not layout.NETNS_DIR.exists():
        return []
    return sorted(path.name for path in layout.NETNS_DIR.iterdir() if path.name.startswith(f"{layout.NAME}-"))


def into(netns: str) -> list[str]:
    """The words before a command that is to run there."""
    return ["nsenter", f"--net={layout.NETNS_DIR / netns}", "--"]


def _add_netns(name: str) -> None:
    _run(["ip", "netns", "add", name])
    script = "; ".join(f"echo {value} > /proc/sys/{key}" for key, value in SYSCTLS.items())
    _run([*into(name), "sh", "-c", script])


def _batch(netns: str, lines: Sequence[str]) -> None:
    _run(["ip", "-n", netns, "-batch", "-"], "\n".join(lines) + "\n")


def _run(command: list[str], text: str = "") -> None:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{error.filename} is not installed: see hack/kube-packages.txt") from error
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}\n{text}".rstrip())
