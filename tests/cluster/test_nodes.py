"""The ground itself: the nodes, what each has for itself, and what happens when one loses its power."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.kube import Cluster
from tests.cluster.manifests import pod, server
from tests.cluster.space import Space

pytestmark = pytest.mark.cluster
OWN = ["/etc/cni/net.d", "/opt/cni/bin", "/run", "/sys/fs/bpf", "/tmp", "/var/lib"]


def test_two_nodes_are_ready_with_pod_networks_of_both_families(cluster: Cluster) -> None:
    found = {}
    for node in cluster.get("nodes")["items"]:
        ready = next(row["status"] for row in node["status"]["conditions"] if row["type"] == "Ready")
        found[node["metadata"]["name"]] = (ready, node["spec"]["podCIDRs"])
    assert found == {
        "node1": ("True", ["10.244.1.0/24", "fd00:244:0:1::/64"]),
        "node2": ("True", ["10.244.2.0/24", "fd00:244:0:2::/64"]),
    }


@pytest.mark.parametrize("directory", OWN)
def test_a_node_has_this_directory_for_itself(cluster: Cluster, directory: str) -> None:
    one, two = cluster.nodes.values()
    mark = f"{directory}/only-node1"
    one.run(["mkdir", mark])
    try:
        assert not Path(mark).exists()
        assert two.run(["ls", directory]).stdout.split().count("only-node1") == 0
        assert one.run(["ls", directory]).stdout.split().count("only-node1") == 1
    finally:
        one.run(["rmdir", mark])


def test_a_pod_with_host_paths_sees_its_own_node(cluster: Cluster, space: Space) -> None:
    """What an agent's pod asks for: the host's network and processes, its cgroups, its bpffs."""
    mount = {"name": "host", "mountPath": "/host", "mountPropagation": "HostToContainer"}
    main = {"securityContext": {"privileged": True}, "volumeMounts": [mount]}
    volume = {"name": "host", "hostPath": {"path": "/"}}
    host = {"hostNetwork": True, "hostPID": True, "volumes": [volume]}
    space.run(pod("agent", "node2", container=main, **host), pod("other", "node1"), pod("near", "node2"))
    uids = {name: space.get("pod", name)["metadata"]["uid"] for name in ("other", "near")}
    seen = space.exec("agent", "sh", "-c", "cat /host/etc/hostname; cat /proc/[0-9]*/cgroup 2>&1 || true")
    assert seen.splitlines()[0] == "node2"
    assert uids["near"] in seen
    assert uids["other"] not in seen
    pods = space.exec("agent", "sh", "-c", "find /host/sys/fs/cgroup -type d -name 'pod*'")
    assert uids["near"] in pods
    assert uids["other"] not in pods
    assert "bpf /host/sys/fs/bpf bpf" in space.exec("agent", "cat", "/proc/mounts")
    cluster.nodes["node2"].run(["mkdir", "/sys/fs/bpf/made-on-the-node"])
    assert "made-on-the-node" in space.exec("agent", "ls", "/host/sys/fs/bpf")
    cluster.nodes["node2"].run(["rmdir", "/sys/fs/bpf/made-on-the-node"])


def test_what_a_kubelet_sets_for_the_machine_stays_on_its_node(cluster: Cluster) -> None:
    key = Path("/proc/sys/kernel/panic")
    on_node = cluster.nodes["node1"].run(["cat", str(key)]).stdout.strip()
    assert on_node == "10"  # kubelet's
    assert key.read_text().strip() != on_node


def test_a_node_that_lost_its_power_comes_back_with_its_pods_and_its_disk(
    cluster: Cluster, shop: Space, space: Space
) -> None:
    node = cluster.nodes["node2"]
    space.run(server("stays", "node2"), server("elsewhere", "node1"))
    restarts = _restarts(space, "stays")
    others = _restarts(shop, "web-2")
    node.run(["touch", "/opt/cni/bin/on-disk", "/run/in-memory"])
    node.run(["mkdir", "/sys/fs/bpf/in-memory"])
    node.run(["iptables", "-N", "IN-MEMORY"])
    cluster.restart("node2")
    _await_restart(space, "stays", 1)
    _await_restart(shop, "web-2", others + 1)
    assert (restarts, _restarts(space, "stays"), _restarts(space, "elsewhere")) == (0, 1, 0)
    assert node.run(["ls", "/opt/cni/bin/on-disk"]).stdout
    assert node.run(["ls", "/run/in-memory"], check=False).returncode != 0
    assert node.run(["ls", "/sys/fs/bpf/in-memory"], check=False).returncode != 0
    assert "IN-MEMORY" not in node.run(["iptables-save"]).stdout
    node.run(["rm", "/opt/cni/bin/on-disk"])
    with space.puppet("elsewhere") as puppet:
        assert puppet.ask(space.ips("stays")[0], 8080).who["pod"] == "stays"


def _await_restart(space: Space, pod: str, count: int) -> None:
    counted = f"--for=jsonpath={{.status.containerStatuses[0].restartCount}}={count}"
    space.kubectl("wait", counted, "--timeout=60s", f"pod/{pod}")
    space.await_ready(pod)


def _restarts(space: Space, pod: str) -> int:
    return int(space.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"])
