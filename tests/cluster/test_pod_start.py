"""Pods that start on a real node are captured before their first instruction, whatever becomes of agents and CNI."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator

import pytest

from ambient.agent.cni.conflist import OWN, TYPE
from ambient.agent.cni.namespaces import MARK
from ambient.model.mesh import TUNNEL_PORT
from hack.kube import Cluster, config
from tests.cluster.manifests import IMAGE, STRICT, Manifest, pod, server
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.cluster.wire import tap
from tests.mesh.waiting import eventually
from tests.mesh.wire import is_tls

pytestmark = pytest.mark.cluster
AGENTS = "daemonset/ambient-agent"
CHAINED = config.CNI_CONFIG.with_name(OWN)
PROGRAM = f"/opt/cni/bin/{TYPE}"
SAY = """
import socket, sys
with socket.create_connection((sys.argv[1], 8080), timeout=10) as sock:
    sock.sendall(f"echo {sys.argv[2]}\\n".encode())
    assert sock.makefile().readline().strip() == sys.argv[2]
"""


@pytest.fixture(scope="module")
def enrolled(mesh: Mesh, cluster: Cluster) -> Iterator[Space]:
    """A namespace that takes mutual TLS only, with a server on the second node."""
    del mesh  # only to be there
    space = Space(cluster, "starts")
    space.create(**{"ambient.dev/mode": "enabled"})
    space.apply(STRICT)
    space.run(server("web", "node2"))
    yield space
    cluster.kubectl("delete", "namespace", space.name)


def talks_at_once(name: str, to: str, word: str) -> Manifest:
    """A pod whose first instruction is a connection; it is made once, and its failure is the pod's."""
    first = {"name": "first", "image": IMAGE, "command": ["python3", "-c", SAY, to, word]}
    return pod(name, "node1", initContainers=[first], restartPolicy="Never")


@contextlib.contextmanager
def without_agents(cluster: Cluster, mesh: Mesh) -> Iterator[None]:
    """No node is the agents' any more, for a while."""
    nowhere = {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "true"}}}}}
    cluster.kubectl("--namespace", NAMESPACE, "patch", AGENTS, "--type=merge", "--patch", json.dumps(nowhere))
    agents = ("--namespace", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=ambient-agent")
    eventually("no agent", lambda: not cluster.get(*agents)["items"], within=90)
    try:
        yield
    finally:
        back = [{"op": "remove", "path": "/spec/template/spec/nodeSelector/nowhere"}]
        cluster.kubectl("--namespace", NAMESPACE, "patch", AGENTS, "--type=json", "--patch", json.dumps(back))
        mesh.await_rollout()


def installed(cluster: Cluster, node: str) -> str:
    """Of both files: which they are, and since when."""
    return cluster.nodes[node].run(["stat", "--format=%i %z", str(CHAINED), PROGRAM]).stdout


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_an_init_containers_first_instruction_is_captured(enrolled: Space, cluster: Cluster, family: int) -> None:
    word = "secret-" + secrets.token_hex(12)
    names = [f"early-{family}-{number}" for number in range(5)]
    to = enrolled.ips("web")[family == 6]
    with tap(cluster, "node2") as underlay:
        enrolled.run(*(talks_at_once(name, to, word) for name in names))
    ips = {enrolled.ips(name)[family == 6] for name in names}
    said = {way: bytes(words) for way, words in underlay.seen.items() if str(way.source) in ips and words}
    assert {str(way.source) for way in said} == ips
    assert {way.destination_port for way in said} == {TUNNEL_PORT}
    assert all(map(is_tls, said.values()))
    assert list(underlay.said(word.encode())) == []
    assert enrolled.captured() >= set(names)
    enrolled.kubectl("delete", "pods", *names, "--wait=false")


def test_without_agents_the_mesh_waits_and_says_why_and_the_rest_does_not(
    enrolled: Space, shop: Space, cluster: Cluster, mesh: Mesh
) -> None:
    word = "secret-" + secrets.token_hex(12)
    before = installed(cluster, "node1")
    with tap(cluster, "node2") as underlay:
        with without_agents(cluster, mesh):
            enrolled.apply(talks_at_once("waits", enrolled.ips("web")[0], word))
            began = time.monotonic()
            shop.run(server("free", "node1"))
            assert time.monotonic() - began < 10
            events = eventually("an Event", lambda: _held(enrolled, "waits"), within=30)
            assert "the agent on this node is not answering" in events[0]
            assert f"namespace {enrolled.name} is in the mesh" in events[0]
            status = enrolled.get("pod", "waits")["status"]
            assert "running" not in status["initContainerStatuses"][0]["state"]
        enrolled.await_ready("waits")
    assert "waits" in enrolled.captured()
    assert list(underlay.said(word.encode())) == []
    assert installed(cluster, "node1") == before, "nobody has the plugin removed by moving agents"
    shop.kubectl("delete", "pod", "free", "--wait=false")
    enrolled.kubectl("delete", "pod", "waits", "--wait=false")


def _held(space: Space, name: str) -> list[str]:
    found = space.cluster.get("--namespace", space.name, "events", "--field-selector", f"involvedObject.name={name}")[
        "items"
    ]
    return [each["message"] for each in found if each["reason"] == "FailedCreatePodSandBox"]


def test_a_configuration_that_the_cni_writes_again_is_chained_again(enrolled: Space, cluster: Cluster) -> None:
    node = cluster.nodes["node1"]
    own = node.run(["cat", str(config.CNI_CONFIG)]).stdout
    other = json.loads(own)
    other["disableCheck"] = True
    try:
        node.run(["tee", str(config.CNI_CONFIG)], text=json.dumps(other))
        eventually("it is followed", lambda: json.loads(_chained(cluster)).get("disableCheck"))
        chained = json.loads(_chained(cluster))["plugins"]
        assert [each["type"] for each in chained] == [each["type"] for each in other["plugins"]] + [TYPE]
        word = "secret-" + secrets.token_hex(12)
        with tap(cluster, "node2") as underlay:
            enrolled.run(talks_at_once("rewritten", enrolled.ips("web")[0], word))
        assert list(underlay.said(word.encode())) == []
        enrolled.kubectl("delete", "pod", "rewritten", "--wait=false")
    finally:
        node.run(["tee", str(config.CNI_CONFIG)], text=own)
        eventually("it is as before", lambda: "disableCheck" not in _chained(cluster))
    assert node.run(["cat", str(config.CNI_CONFIG)]).stdout == own


def _chained(cluster: Cluster) -> str:
    return cluster.nodes["node1"].run(["cat", str(CHAINED)]).stdout


def test_a_plugin_that_somebody_removed_is_put_back(mesh: Mesh, cluster: Cluster) -> None:
    del mesh
    node = cluster.nodes["node1"]
    node.run(["rm", str(CHAINED), PROGRAM])
    there = lambda: node.run(["ls", str(CHAINED), PROGRAM], check=False).returncode == 0  # noqa: E731
    eventually("both files", there)


def test_restarted_agents_leave_the_plugin_where_it_is(mesh: Mesh, cluster: Cluster) -> None:
    before = {node: installed(cluster, node) for node in cluster.nodes}
    cluster.kubectl("--namespace", NAMESPACE, "rollout", "restart", AGENTS)
    mesh.await_rollout()
    assert {node: installed(cluster, node) for node in cluster.nodes} == before
    for node in cluster.nodes.values():
        assert node.run(["ls", f"/run/ambient/{MARK}"], check=False).returncode != 0
