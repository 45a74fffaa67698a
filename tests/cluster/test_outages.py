"""What the mesh stands on goes away for a while: the API server, a control plane's replica, all of them, a node."""

from __future__ import annotations

import datetime
import os
import re
import secrets
import signal
import time
from collections.abc import Iterator

import pytest

from hack.kube import Cluster
from tests.cluster import churn
from tests.cluster.manifests import ENROL, server, service
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.cluster.test_mesh import policy
from tests.cluster.wire import tap
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
PODS = {"web-1": "node1", "web-2": "node2", **churn.CLIENTS}
CONTROL, AGENT = "app.kubernetes.io/name=ambient-control", "app.kubernetes.io/name=ambient-agent"
API_AWAY_S = 60
MOVED_S = 5.0  # in which the agents of a replica that died are another one's
SAID_S = 60.0  # an outage is no news before it has lasted some seconds, and attempts come rarer and rarer
BACK_S = 60.0


@pytest.fixture(scope="module")
def enrolled(mesh: Mesh, cluster: Cluster) -> Iterator[Space]:
    """Servers and clients on both nodes, STRICT."""
    del mesh  # only to be there
    space = Space(cluster, "outages")
    space.create()
    space.apply(service(churn.NAME))
    servers = (server(name, PODS[name], labels={"app": churn.NAME}) for name in ("web-1", "web-2"))
    space.run(*servers, *(server(name, on) for name, on in churn.CLIENTS.items()))
    cluster.kubectl("label", "namespace", space.name, ENROL)
    eventually("every pod is captured", lambda: space.captured() == set(PODS), within=30)
    space.apply(policy("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}}))
    yield space
    cluster.kubectl("delete", "namespace", space.name, "--wait=false")


def metric(cluster: Cluster, at: str, name: str) -> float:
    """A number that a process tells at this address; -1 while nobody answers there."""
    node = next(iter(cluster.nodes.values()))
    said = node.run(["curl", "-s", "--max-time", "2", f"http://{at}:15020/metrics"], check=False).stdout
    found = re.search(rf"^{name}(?:_total)? (\S+)$", said, re.MULTILINE)
    return float(found[1]) if found else -1


def replicas(cluster: Cluster) -> dict[str, str]:
    """The control plane's pods and their addresses."""
    rows = cluster.get("pods", "--namespace", NAMESPACE, "--selector", CONTROL)["items"]
    return {row["metadata"]["name"]: row["status"]["podIP"] for row in rows}


def heartbeats(cluster: Cluster) -> list[datetime.datetime]:
    """When each node's kubelet has renewed its Lease."""
    rows = cluster.get("leases", "--namespace", "kube-node-lease")["items"]
    return [datetime.datetime.fromisoformat(row["spec"]["renewTime"]) for row in rows]


def test_a_minute_without_an_api_server_fails_no_request(enrolled: Space, cluster: Cluster) -> None:
    vip = enrolled.get("service", churn.NAME)["spec"]["clusterIP"]
    at = replicas(cluster)
    with enrolled.puppet("near", without_api=True) as near, enrolled.puppet("far", without_api=True) as far:
        both = (near, far)
        cluster.control_plane.apiserver.stop()
        try:
            for puppet in both:
                puppet.do("newcomers", name="load", to=vip, port=80, pause=churn.PAUSE_S)
            said = lambda: all(metric(cluster, ip, "ambient_control_source_errors") > 0 for ip in at.values())  # noqa: E731
            began = time.monotonic()
            eventually("the control plane says so", said, within=SAID_S)
            eventually("a minute is over", lambda: time.monotonic() - began > API_AWAY_S, within=2 * API_AWAY_S)
            found = [puppet.do("finish", name="load") for puppet in both]
        finally:
            cluster.control_plane.start_api()
            back = datetime.datetime.now(datetime.UTC)
    assert [each.failed for each in found] == [[], []]
    healed = lambda: [metric(cluster, ip, "ambient_control_source_errors") for ip in at.values()] == [0, 0]  # noqa: E731
    eventually("it has seen the API server again", healed, within=BACK_S)
    enrolled.run(server("after", "node2"))
    eventually("a new pod is captured", lambda: "after" in enrolled.captured(), within=BACK_S)
    enrolled.kubectl("delete", "pod/after", "--wait=false")
    # Kubernetes, which found the nodes silent when it was back, has called their pods unready, for mesh and kube-proxy.
    eventually("every kubelet is heard", lambda: min(heartbeats(cluster)) > back, within=BACK_S)
    cluster.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
    enrolled.kubectl("wait", "--for=condition=Ready", "pods", *PODS, "--timeout=60s")


def test_the_agents_of_a_replica_that_died_are_anothers_within_seconds(enrolled: Space, cluster: Cluster) -> None:
    at = replicas(cluster)
    agents = {name: metric(cluster, ip, "ambient_control_agents") for name, ip in at.items()}
    assert sum(agents.values()) == len(cluster.nodes), agents
    dying = max(agents, key=lambda name: agents[name])
    (other,) = at.keys() - {dying}
    pid, _ = Space(cluster, NAMESPACE).container(dying)
    with churn.load(enrolled) as loads:
        os.kill(pid, signal.SIGKILL)
        everybody = lambda: metric(cluster, at[other], "ambient_control_agents") == len(cluster.nodes)  # noqa: E731
        eventually("all agents are the other's", everybody, within=MOVED_S)
    assert [load.failed for load in loads] == [[], []]


def test_without_a_control_plane_traffic_goes_on_and_the_agents_say_so(
    enrolled: Space, cluster: Cluster, mesh: Mesh
) -> None:
    addresses = [row.node.ips[0] for row in cluster.nodes.values()]
    errors = lambda: [metric(cluster, ip, "ambient_config_errors") for ip in addresses]  # noqa: E731
    assert errors() == [0, 0]
    scale = ("--namespace", NAMESPACE, "scale", "deployment/ambient-control")
    try:
        with churn.load(enrolled) as loads:
            cluster.kubectl(*scale, "--replicas=0")
            eventually("both agents say so", lambda: min(errors()) > 0, within=SAID_S)
    finally:
        cluster.kubectl(*scale, "--replicas=2")
    assert [load.failed for load in loads] == [[], []]
    mesh.await_rollout()
    eventually("both are in step again", lambda: errors() == [0, 0], within=BACK_S)


def test_nothing_plain_goes_to_a_node_that_lost_its_power_and_all_is_well_when_it_is_back(
    enrolled: Space, cluster: Cluster, mesh: Mesh
) -> None:
    secret = "secret-" + secrets.token_hex(12)
    restarts = {name: restarted(enrolled, name) for name, on in PODS.items() if on == "node2"}
    with tap(cluster, "node1") as underlay, enrolled.puppet("near") as near:
        asked = near.ask(enrolled.ips("web-2")[0], 8080, text=f"echo {secret}")
        assert secret in asked.reply
        cluster.nodes["node2"].kill()
        lost = enrolled.ips("web-2")[0]
        assert near.ask(lost, 8080, text=f"echo {secret}", timeout=5.0).error
        cluster.power_on("node2")
        for name, count in restarts.items():
            eventually(
                f"{name} is there again",
                lambda name=name, count=count: restarted(enrolled, name) > count,
                within=BACK_S,
            )
            near.ask(lost, 8080, text=f"echo {secret}", timeout=2.0)
        enrolled.await_ready(*restarts)
        mesh.await_rollout()

        def answer() -> bool:
            return near.ask(enrolled.ips("web-2")[0], 8080, text=f"echo {secret}", timeout=5.0).error == ""

        eventually("it answers", answer, within=BACK_S)
        # An endpoint that did not answer is set aside for a while.
        both = lambda: {near.ask(churn.NAME).who["pod"] for _ in range(10)} == {"web-1", "web-2"}  # noqa: E731
        eventually("so does the service, by either", both, within=BACK_S)
    assert list(underlay.said(secret.encode())) == []
    with enrolled.puppet("far") as far:
        eventually("its own pods speak", lambda: not far.ask(enrolled.ips("web-1")[0], 8080).error)


def restarted(space: Space, pod: str) -> int:
    return int(space.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"])
