"""The guard: what the nodes' network looks like where the mesh has no business, to be compared before and after.

What belongs to the pods and services of one namespace (the mesh's own) is left out: kube-proxy and the CNI plugins make
the same for anybody's. All else must not differ by a byte. Parsing is pure; `footprint` alone asks the nodes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from hack.kube import Cluster
from hack.kube.node import RunningNode

Footprint = dict[str, list[str]]  # by node and command: its lines, in an order that means something or sorted

SETTLED_S = 60
STEADY_S = 2.5
PAUSE_S = 0.3
COMMANDS = {
    "iptables": ("iptables-save",),
    "ip6tables": ("ip6tables-save",),
    "rules": ("ip", "rule"),
    "rules6": ("ip", "-6", "rule"),
    "routes": ("ip", "route", "show", "table", "all"),
    "routes6": ("ip", "-6", "route", "show", "table", "all"),
    "links": ("ip", "-oneline", "-details", "link"),
    "filters": ("tc", "filter", "show", "dev", "eth0", "ingress"),
    "egress": ("tc", "filter", "show", "dev", "eth0", "egress"),
}
_CHAIN = re.compile(r"^(?::|-A )(?P<chain>\S+)")
_COUNTERS = re.compile(r" \[\d+:\d+\]$")
_OF_A_SERVICE = re.compile(r"KUBE-(?:EXT|FW|SEP|SVC|SVL)-")  # kube-proxy's own chains for one service or endpoint
_BUILT_IN = frozenset({"FORWARD", "INPUT", "OUTPUT", "POSTROUTING", "PREROUTING"})
_DEVICE = re.compile(r" dev (\S+)")


def footprint(cluster: Cluster, *, without: str) -> Footprint:
    """Of every node; `without` is the namespace whose pods and services are left out."""
    pods = cluster.get("pods", "--namespace", without)["items"]
    ips = [row["ip"] for pod in pods if not pod["spec"].get("hostNetwork") for row in pod["status"].get("podIPs", ())]
    return {key: lines for node in cluster.nodes.values() for key, lines in _of_node(node, ips, without).items()}


def settled(cluster: Cluster, *, without: str) -> Footprint:
    """The footprint when namespaces that are to go are gone and kube-proxy, which writes once a second, is done."""
    going = [
        space["metadata"]["name"]
        for space in cluster.get("namespaces")["items"]
        if space["status"]["phase"] == "Terminating"
    ]
    if going:
        names = [f"namespace/{name}" for name in going]
        cluster.kubectl("wait", "--for=delete", f"--timeout={SETTLED_S}s", *names)
    deadline = time.monotonic() + SETTLED_S
    last, since = footprint(cluster, without=without), time.monotonic()
    while time.monotonic() < since + STEADY_S:
        assert time.monotonic() < deadline, f"the nodes' network was never the same for {STEADY_S} s"
        time.sleep(PAUSE_S)
        if (now := footprint(cluster, without=without)) != last:
            last, since = now, time.monotonic()
    return last


def _of_node(node: RunningNode, ips: Iterable[str], without: str) -> Footprint:
    said = {name: node.run(command).stdout for name, command in COMMANDS.items()}
    devices = devices_of(said["routes"] + said["routes6"], ips)
    found = {}
    for name, text in said.items():
        tables = "tables" in name
        found[f"{node.node.name} {name}"] = rules(text, without) if tables else elsewhere(text, devices)
    return found


def devices_of(routes: str, ips: Iterable[str]) -> set[str]:
    """The nodes' ends of these pods' links."""
    wanted = set(ips)
    lines = [line for line in routes.splitlines() if line.split(" ", 1)[0] in wanted]
    return {found[1] for line in lines if (found := _DEVICE.search(line))}


def elsewhere(text: str, devices: set[str]) -> list[str]:
    """The lines that name none of these devices."""
    names = re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(devices))) + r")\b") if devices else None
    return sorted(line for line in text.splitlines() if names is None or not names.search(line))


def rules(saved: str, without: str) -> list[str]:
    """iptables-save's output without counters, dates and what serves the namespace.

    The built-in chains keep their order; kube-proxy's come in any, and no two rules in one of them match the same.
    """
    lines, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith((":", "-A ")):
            lines.append((table, _COUNTERS.sub("", line)))
    serves = re.compile(rf'--comment "?{re.escape(without)}/')
    foreign = {chain for _, line in lines if serves.search(line) and _OF_A_SERVICE.match(chain := _chain(line))}
    kept = [(table, line) for table, line in lines if not serves.search(line) and _chain(line) not in foreign]
    ordered = [f"{table} {line}" for table, line in kept if _chain(line) in _BUILT_IN]
    return ordered + sorted(f"{table} {line}" for table, line in kept if _chain(line) not in _BUILT_IN)


def _chain(line: str) -> str:
    found = _CHAIN.match(line)
    assert found, line
    return found["chain"]


def differences(before: Footprint, after: Footprint) -> list[str]:
    """What came and what went, by node and command."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, []), after.get(key, [])
        found += [f"{key}: - {line}" for line in old if line not in new]
        found += [f"{key}: + {line}" for line in new if line not in old]
        if old != new and sorted(old) == sorted(new):
            found.append(f"{key}: the same lines in another order")
    return found
