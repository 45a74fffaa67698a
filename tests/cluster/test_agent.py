"""The image's agent on real nodes, without a control plane: it reads a directory of what the API server says.

Running pods are captured, what they say between the nodes is mutual TLS, kubelet's probes go on, and the nodes' network
is what it was before.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.identity.ca import EmbeddedCA
from ambient.model.mesh import TUNNEL_PORT
from hack.kube import Cluster
from tests.cluster.footprint import Footprint, differences, settled
from tests.cluster.manifests import AMBIENT_IMAGE, Manifest, pod, server, service
from tests.cluster.space import Space
from tests.cluster.wire import tap
from tests.mesh.waiting import eventually
from tests.mesh.wire import is_tls

pytestmark = pytest.mark.cluster
AGENTS = "test-agents"
CA = Path("/var/lib/ambient-ca")  # on each node
HOST = {"run": "/run/ambient", "bpf": "/sys/fs/bpf", "cgroup": "/sys/fs/cgroup", "ca": str(CA)}
ENROLLED = {"ambient.dev/mode": "enabled"}


def an_agent(node: str) -> Manifest:
    """What the DaemonSet's pod is like, with all privileges."""
    container = {
        "image": AMBIENT_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["ambient", "agent", "--node", node, "--source", "/world", "--ca-dir", str(CA)],
        "securityContext": {"privileged": True, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "world", "mountPath": "/world"},
            *({"name": name, "mountPath": path} for name, path in HOST.items()),
        ],
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": 15021, "host": "127.0.0.1"},
            "periodSeconds": 1,
        },
    }
    volumes: list[Manifest] = [{"name": "world", "configMap": {"name": "world"}}]
    for name, path in HOST.items():
        volumes.append({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}})
    return pod(node, node, container=container, volumes=volumes, hostNetwork=True, hostPID=True)


def world_of(cluster: Cluster, namespace: str) -> Manifest:
    """The agents' source: what the API server knows, as it says it."""
    said = {kind: cluster.get(kind) for kind in ("nodes", "namespaces")}
    said |= {kind: cluster.get(kind, "--namespace", namespace) for kind in ("pods", "services")}
    files = {f"{kind}.yaml": json.dumps(found) for kind, found in said.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "world"}, "data": files}


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[Space]:
    """A client and a server on different nodes, running before there is a mesh."""
    space = Space(cluster, "test-enrolled")
    space.create(**ENROLLED)
    space.apply(service("web"))
    space.run(server("client", "node1"), server("web", "node2"))
    yield space
    cluster.kubectl("delete", "namespace", space.name)


@pytest.fixture(scope="module")
def before(cluster: Cluster, pods: Space) -> Footprint:  # noqa: ARG001 - with the pods that are to be captured
    return settled(cluster, without=AGENTS)


@pytest.fixture(scope="module", autouse=True)
def agents(
    cluster: Cluster,
    pods: Space,
    before: Footprint,  # noqa: ARG001 - taken before they come
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Space]:
    """One per node, of one CA, each with both pods captured."""
    authority = tmp_path_factory.mktemp("agents") / "ca"
    EmbeddedCA.open(authority, "cluster.local")
    for node in cluster.nodes.values():
        shutil.copytree(authority, node.node.root / CA.relative_to("/"))
    space = Space(cluster, AGENTS)
    space.create()
    space.apply(world_of(cluster, pods.name))
    space.run(*(an_agent(node) for node in cluster.nodes))
    for node in cluster.nodes:
        eventually(f"{node}'s pod captured", lambda node=node: captured(space, node), within=30)  # type: ignore[misc]
    yield space
    cluster.kubectl("delete", "namespace", AGENTS)
    for node in cluster.nodes.values():
        node.run(["rm", "-rf", "/sys/fs/bpf/ambient-v1", "/run/ambient", str(CA)])


def captured(agents: Space, node: str) -> list[str]:
    rows = json.loads(agents.exec(node, "ambient", "get", "workloads", "-o", "json"))
    return [row["name"] for row in rows if row["node"] == node and row["state"] == "captured"]


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_what_running_pods_say_between_nodes_is_mutual_tls(cluster: Cluster, pods: Space, family: int) -> None:
    word = "secret-" + secrets.token_hex(12)
    vip = pods.get("service", "web")["spec"]["clusterIPs"][family == 6]
    with pods.puppet("client") as client, tap(cluster, "node1") as wire:
        assert client.ask(vip, 80, f"echo {word}").reply == word
        who = client.ask(vip, 80).who
    assert who["pod"] == "web"
    assert who["peer"].rpartition(":")[0].strip("[]") == pods.ips("client")[family == 6]
    assert list(wire.said(word.encode())) == []
    ips = {pods.ips(name)[family == 6] for name in ("client", "web")}
    between = {way: said for way, said in wire.seen.items() if said and {str(way.source), str(way.destination)} == ips}
    assert between
    for way, said in between.items():
        assert TUNNEL_PORT in (way.source_port, way.destination_port), way
        assert is_tls(bytes(said)), way


def test_kubelet_still_finds_the_pods_ready(pods: Space) -> None:
    """Its probes come every second, to the program itself."""
    probed = lambda: pods.kubectl("logs", "web").count('"accept"')  # noqa: E731
    so_far = probed()
    eventually("three more probes", lambda: probed() >= so_far + 3)
    pods.await_ready("client", "web")
    assert [pods.get("pod", name)["status"]["containerStatuses"][0]["restartCount"] for name in ("client", "web")] == [
        0,
        0,
    ]


def test_the_nodes_network_is_what_it_was(cluster: Cluster, before: Footprint) -> None:
    assert differences(before, settled(cluster, without=AGENTS)) == []
