"""The lab's wiring: one fabric with a bridge, nodes on it, pods routed behind nodes, as a routed CNI does it.

A pod has its addresses as /32 and /128, one default route by a gateway that is always the node's end of its own veth,
and permanent neighbour entries: no ARP, no duplicate address detection, nothing to wait for. Work is one `ip -batch`
per netns.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ambient.lab import addressing, linux
from ambient.lab.addressing import NodeAddresses
from ambient.lab.errors import Environment
from ambient.lab.layout import Layout, netns_path, node_link, pod_link

BRIDGE = "br0"
UPLINK = "eth0"  # a node's interface on the underlay, and a pod's only one
GATEWAY4 = "169.254.1.1"
GATEWAY6 = "fe80::1"
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"  # every pod's gateway has the same: a neighbour entry never goes stale
PodAddresses = tuple[ipaddress.IPv4Address, ipaddress.IPv6Address]


def fabric_lines() -> list[str]:
    """The underlay, and the world outside: nodes' default route ends here."""
    return [
        "link set lo up",
        f"link add {BRIDGE} type bridge mcast_snooping 0",
        f"address add {addressing.FABRIC4}/{addressing.UNDERLAY4.prefixlen} dev {BRIDGE}",
        f"address add {addressing.FABRIC6}/{addressing.UNDERLAY6.prefixlen} dev {BRIDGE} nodad",
        f"link set {BRIDGE} up",
    ]


def uplink_lines(node: NodeAddresses, netns: str) -> list[str]:
    """In the fabric: a node's port and the way to its pods."""
    port = node_link(node.index)
    return [
        f"link add {port} type veth peer name {UPLINK} netns {netns}",
        f"link set {port} master {BRIDGE} up",
        *(f"route add {net} via {ip}" for net, ip in zip(node.pod_networks, node.ips, strict=True)),
    ]


def unlink_lines(node: NodeAddresses) -> list[str]:
    """In the fabric, when a node goes. The port is deleted by hand: a netns ends at some time after its name."""
    routes = [f"route del {net} via {ip}" for net, ip in zip(node.pod_networks, node.ips, strict=True)]
    return [*routes, f"link del {node_link(node.index)}"]


def node_lines(node: NodeAddresses, others: Sequence[NodeAddresses]) -> list[str]:
    """In a node's netns. Addresses of its own pods that nobody has are unreachable at once instead of looping."""
    four, six = node.ips
    return [
        "link set lo up",
        f"address add {four}/{addressing.UNDERLAY4.prefixlen} dev {UPLINK}",
        f"address add {six}/{addressing.UNDERLAY6.prefixlen} dev {UPLINK} nodad",
        f"link set {UPLINK} up",
        f"route add default via {addressing.FABRIC4}",
        f"route add default via {addressing.FABRIC6}",
        *(f"route add unreachable {net} metric 4096" for net in node.pod_networks),
        *(line for other in others for line in peer_lines(other)),
    ]


def peer_lines(other: NodeAddresses, verb: str = "add") -> list[str]:
    """In a node's netns: the way to another node's pods, over the underlay."""
    return [f"route {verb} {net} via {ip}" for net, ip in zip(other.pod_networks, other.ips, strict=True)]


def pod_lines_on_node(pod: str, netns: str, ips: PodAddresses, node: NodeAddresses) -> list[str]:
    """In the node's netns. `src` makes probes and other node traffic come from the node's own address."""
    link, mac = pod_link(pod), addressing.pod_mac(ips[0])
    return [
        f"link add {link} address {GATEWAY_MAC} type veth peer name {UPLINK} address {mac} netns {netns}",
        f"link set {link} up",
        f"address add {GATEWAY6}/64 dev {link} nodad",
        *(f"neighbour add {ip} lladdr {mac} dev {link} nud permanent" for ip in ips),
        *(f"route add {ip} dev {link} src {source}" for ip, source in zip(ips, node.ips, strict=True)),
    ]


def pod_lines(ips: PodAddresses) -> list[str]:
    """In the pod's netns."""
    four, six = ips
    return [
        "link set lo up",
        f"address add {four}/32 dev {UPLINK}",
        f"address add {six}/128 dev {UPLINK} nodad",
        f"link set {UPLINK} up",
        f"neighbour add {GATEWAY4} lladdr {GATEWAY_MAC} dev {UPLINK} nud permanent",
        f"neighbour add {GATEWAY6} lladdr {GATEWAY_MAC} dev {UPLINK} nud permanent",
        f"route add default via {GATEWAY4} dev {UPLINK} onlink",
        f"route add default via {GATEWAY6} dev {UPLINK}",
    ]


class Network:
    """Carries out what the functions above say, for one lab. Blocking, a few milliseconds each."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def add_fabric(self) -> None:
        netns = self._layout.fabric_netns
        add_netns(netns)
        _batch(netns, fabric_lines())
        forward(netns_path(netns))

    def add_node(self, name: str, node: NodeAddresses, others: dict[str, NodeAddresses]) -> None:
        netns = self._layout.node_netns(name)
        add_netns(netns)
        _batch(self._layout.fabric_netns, uplink_lines(node, netns))
        _batch(netns, node_lines(node, list(others.values())))
        forward(netns_path(netns))
        for other in others:
            _batch(self._layout.node_netns(other), peer_lines(node))

    def remove_node(self, name: str, node: NodeAddresses, others: dict[str, NodeAddresses]) -> None:
        _batch(self._layout.fabric_netns, unlink_lines(node))
        for other in others:
            _batch(self._layout.node_netns(other), peer_lines(node, "del"))
        remove_netns(self._layout.node_netns(name))

    def add_pod(self, pod: str, ips: PodAddresses, node_name: str, node: NodeAddresses) -> None:
        netns = self._layout.pod_netns(pod)
        add_netns(netns)
        _batch(self._layout.node_netns(node_name), pod_lines_on_node(pod, netns, ips, node))
        _batch(netns, pod_lines(ips))

    def remove_pod(self, pod: str, node_name: str) -> None:
        """The link goes at once, with its routes; the netns when the last process that has it open lets go."""
        _batch(self._layout.node_netns(node_name), [f"link del {pod_link(pod)}"])
        remove_netns(self._layout.pod_netns(pod))

    def set_services(self, node: str, ruleset: str) -> None:
        """Replace the node's service rules in one transaction."""
        _run(["nft", "-f", "-"], ruleset, netns=self._layout.node_netns(node))


def add_netns(name: str) -> None:
    if netns_path(name).exists():
        raise Environment(f"network namespace {name} exists and is not this lab's: ip netns del {name}")
    _run(["ip", "netns", "add", name])


def remove_netns(name: str) -> None:
    """Idempotent."""
    if netns_path(name).exists():
        _run(["ip", "netns", "del", name])


def forward(netns: Path) -> None:
    """Make a netns a router, as every Kubernetes node is."""
    with linux.inside_netns(netns):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


def _batch(netns: str, lines: Sequence[str]) -> None:
    if lines:
        _run(["ip", "-n", netns, "-batch", "-"], "\n".join(lines) + "\n")


def _run(command: list[str], text: str = "", netns: str | None = None) -> None:
    if netns is not None:
        command = ["nsenter", f"--net={netns_path(netns)}", "--", *command]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Environment(
            f"{error.filename} is not installed: a lab needs iproute2, nftables and util-linux"
        ) from error
    if done.returncode != 0:
        raise Environment(f"{' '.join(command)} failed: {done.stderr.strip()}\n{text}".rstrip())
