"""Replicas of the control plane that are killed: agents are at another one in time, and no connection notices."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from hack.kube import Cluster
from tests.cluster.manifests import ENROL, server
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.cluster.test_mesh import CLIENT, policy
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
MOVED_WITHIN_S = 5.0
PORT = 8080


@pytest.fixture
def enrolled(mesh: Mesh, cluster: Cluster) -> Iterator[Space]:
    """A client and, on the other node, two servers: one to talk to, one whose policy changes."""
    del mesh  # only to be there
    space = Space(cluster, "enrolled")
    space.create()
    space.run(server("web", "node2"), server("news", "node2", labels={"app": "news"}), server("client", "node1"))
    cluster.kubectl("label", "namespace", space.name, ENROL)
    eventually("every pod is captured", lambda: space.captured() == {"web", "news", "client"}, within=30)
    yield space
    cluster.kubectl("delete", "namespace", space.name)


def test_each_replica_killed_in_turn_costs_no_connection_and_news_arrive_in_time(
    enrolled: Space, cluster: Cluster, mesh: Mesh
) -> None:
    """With SIGKILL: nobody is told to leave, no Lease is released."""
    web, news, system = enrolled.ips("web")[0], enrolled.ips("news")[0], Space(cluster, NAMESPACE)
    pods = cluster.get("--namespace", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=ambient-control")["items"]
    rule = {"from": [{"source": {"principals": [CLIENT]}}]}
    spec = {"selector": {"matchLabels": {"app": "news"}}, "action": "DENY", "rules": [rule]}
    refusal = policy("AuthorizationPolicy", "no-client", spec)
    assert len(pods) == 2
    with enrolled.puppet("client") as client:
        assert not client.open("talk", web, PORT).error
        client.do("chat", name="talk")
        client.do("newcomers", name="newcomers", to=web, port=PORT)
        for pod in pods:
            killed, _ = system.container(pod["metadata"]["name"])
            os.kill(killed, signal.SIGKILL)
            began = time.monotonic()
            enrolled.apply(refusal)
            eventually("the news arrive", lambda: client.ask(news, PORT).was_refused, within=20)
            took = time.monotonic() - began
            assert took < MOVED_WITHIN_S, f"{took:.1f} s from the death of a replica to the news"
            enrolled.kubectl("delete", "authorizationpolicies.ambient.dev/no-client")
            eventually("it is let in again", lambda: not client.ask(news, PORT).error)
            mesh.await_rollout()
        client.do("fresh", name="newcomers", times=20)
        newcomers, talk = client.do("finish", name="newcomers"), client.do("finish", name="talk")
    assert (newcomers.error, newcomers.failed) == ("", [])
    assert talk.error == ""
