"""The mesh as a user of Kubernetes has it: one file applied, a namespace labelled, policies written; nothing else."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from ambient.model.mesh import TUNNEL_PORT
from hack.kube import Cluster, ClusterError
from tests.cluster.manifests import ENROL, LEAVE, Manifest, server, service
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.cluster.wire import tap
from tests.mesh.waiting import eventually
from tests.mesh.wire import is_tls

pytestmark = pytest.mark.cluster
PODS = ("web-1", "web-2", "client")
CLIENT = "cluster.local/ns/enrolled/sa/default"


def policy(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": "ambient.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def agent_on(cluster: Cluster, node: str) -> Manifest:
    chosen = ("-l", "app.kubernetes.io/name=ambient-agent", f"--field-selector=spec.nodeName={node}")
    (pod,) = cluster.get("pods", "--namespace", NAMESPACE, *chosen)["items"]
    found: Manifest = pod
    return found


def restarts(pod: Manifest) -> int:
    return sum(each["restartCount"] for each in pod["status"]["containerStatuses"])


def records(cluster: Cluster) -> list[dict[str, Any]]:
    """What the agents wrote of connections."""
    said = cluster.kubectl("--namespace", NAMESPACE, "logs", "--tail=-1", "-l", "app.kubernetes.io/name=ambient-agent")
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def enrolled(mesh: Mesh, cluster: Cluster) -> Iterator[Space]:
    """Servers on both nodes and a client, running before their namespace is enrolled."""
    del mesh  # only to be there
    space = Space(cluster, "enrolled")
    space.create()
    labels = {"app": "web"}
    space.apply(service("web"))
    space.run(
        server("web-1", "node1", labels=labels), server("web-2", "node2", labels=labels), server("client", "node1")
    )
    cluster.kubectl("label", "namespace", space.name, ENROL)
    eventually("every pod is captured", lambda: space.captured() == set(PODS), within=30)
    yield space
    cluster.kubectl("delete", "namespace", space.name)


def test_running_pods_talk_mutual_tls_after_a_label(enrolled: Space, cluster: Cluster) -> None:
    secret = "secret-" + secrets.token_hex(12)
    with tap(cluster, "node2") as underlay, enrolled.puppet("client") as client:
        answer = client.ask(enrolled.ips("web-2")[0], 8080, text=f"echo {secret}")
        assert secret in answer.reply
        who = client.ask(enrolled.ips("web-2")[0], 8080).who
    assert who["peer"].rpartition(":")[0].strip("[]") == enrolled.ips("client")[0]
    said = {way: bytes(words) for way, words in underlay.seen.items()}
    assert not [way for way, words in said.items() if secret.encode() in words]
    tunnels = [words for way, words in said.items() if way.destination_port == TUNNEL_PORT and words]
    assert tunnels
    assert all(map(is_tls, tunnels))
    (row, *_) = eventually(
        "a record of it",
        lambda: [r for r in records(cluster) if r["reporter"] == "destination" and r["destination_pod"] == "web-2"],
    )
    assert (row["connection_security_policy"], row["source_principal"]) == ("mutual_tls", f"spiffe://{CLIENT}")


def test_a_cluster_ip_is_carried_to_both_nodes(enrolled: Space) -> None:
    with enrolled.puppet("client") as client:
        answers = {client.ask("web", 80).who["pod"] for _ in range(40)}
    assert answers == {"web-1", "web-2"}


def test_probes_go_on_and_strangers_stay_out_where_it_is_strict(enrolled: Space, shop: Space) -> None:
    enrolled.apply(policy("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}}))
    ip = enrolled.ips("web-2")[0]
    with shop.puppet("client") as stranger, enrolled.puppet("client") as client:
        eventually("the stranger is refused", lambda: stranger.ask(ip, 8080).was_refused)
        assert client.ask(ip, 8080).who["pod"] == "web-2"
    enrolled.run(server("late", "node2"))  # ready only if kubelet's probe gets through
    enrolled.kubectl("delete", "pod/late", "peerauthentications.ambient.dev/default", "--wait=false")


def test_a_denied_caller_is_refused_by_the_rule_and_the_policy_says_that_it_holds(
    enrolled: Space, cluster: Cluster
) -> None:
    spec = {"action": "DENY", "rules": [{"from": [{"source": {"principals": [CLIENT]}}]}]}
    enrolled.apply(policy("AuthorizationPolicy", "no-client", spec))
    enrolled.kubectl("wait", "--for=condition=Accepted", "--timeout=20s", "authorizationpolicies.ambient.dev/no-client")
    with enrolled.puppet("client") as client:
        eventually("it is refused", lambda: client.ask(enrolled.ips("web-2")[0], 8080).was_refused)
        rules = {row["rule"] for row in records(cluster) if row["verdict"] == "deny"}
        assert any("enrolled/no-client" in rule for rule in rules), rules
        enrolled.kubectl("delete", "authorizationpolicies.ambient.dev/no-client")
        eventually("it is let in again", lambda: not client.ask(enrolled.ips("web-2")[0], 8080).error)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"action": "PERHAPS"}, "spec.action", id="an action that is none"),
        pytest.param({"rules": [{"from": [{"source": {}}]}]}, "source", id="a source of nothing"),
        pytest.param({"rules": [{"to": [{"operation": {"ports": ["http"]}}]}]}, "ports", id="a port that is no number"),
        pytest.param({"selektor": {}}, "unknown field", id="a field that does not exist"),
        pytest.param({"selector": {"matchLabels": {"a*": "b"}}}, "without wildcards", id="a wildcard in a label"),
        pytest.param({"rules": [{"from": [{"source": {"namespaces": []}}]}]}, "namespaces", id="a list of nothing"),
        pytest.param(
            {"rules": [{"from": [{"source": {"principals": ["a:://b"]}}]}]},
            "principals",
            id="a principal with a scheme",
        ),
    ],
)
def test_the_api_server_refuses_what_the_mesh_would(enrolled: Space, spec: Manifest, said: str) -> None:
    with pytest.raises(ClusterError, match=said):
        enrolled.apply(policy("AuthorizationPolicy", "wrong", spec))


def test_a_restart_of_every_agent_cuts_no_connection(enrolled: Space, cluster: Cluster, mesh: Mesh) -> None:
    with enrolled.puppet("client") as client:
        assert not client.open("chat", enrolled.ips("web-2")[0], 8080).error
        assert not client.say("chat", "echo before").error
        cluster.kubectl("--namespace", NAMESPACE, "rollout", "restart", "daemonset/ambient-agent")
        mesh.await_rollout()
        assert "after" in client.say("chat", "echo after").reply
        assert client.ask(enrolled.ips("web-2")[0], 8080).who["pod"] == "web-2"


@pytest.mark.timeout(400)
def test_an_agent_that_hangs_is_started_anew_and_cuts_no_connection(
    enrolled: Space, cluster: Cluster, mesh: Mesh
) -> None:
    """With a probe that is less patient than the file's, so that the test need not be as patient."""
    mine = ("--namespace", NAMESPACE)
    probe = {"name": "agent", "livenessProbe": {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3}}
    patch = {"spec": {"template": {"spec": {"containers": [probe]}}}}
    cluster.kubectl(*mine, "patch", "daemonset/ambient-agent", "--patch", json.dumps(patch))
    mesh.await_rollout()
    with enrolled.puppet("client") as client:
        assert not client.open("chat", enrolled.ips("web-2")[0], 8080).error
        assert not client.do("chat", name="chat").error
        agent = agent_on(cluster, "node2")
        os.kill(Space(cluster, NAMESPACE).container(agent["metadata"]["name"])[0], signal.SIGSTOP)
        eventually("it is started anew", lambda: restarts(agent_on(cluster, "node2")) == 1, within=120)
        mesh.await_rollout()
        assert not client.do("fresh", name="chat", times=3).error
        assert not client.do("finish", name="chat").error
    cluster.kubectl(*mine, "rollout", "undo", "daemonset/ambient-agent")
    mesh.await_rollout()


def test_pods_of_a_namespace_that_leaves_are_as_before(enrolled: Space, cluster: Cluster) -> None:
    cluster.kubectl("label", "namespace", enrolled.name, LEAVE)
    eventually("no pod is captured", lambda: not enrolled.captured(), within=30)
    secret = "secret-" + secrets.token_hex(12)
    with tap(cluster, "node2") as underlay, enrolled.puppet("client") as client:
        assert secret in client.ask(enrolled.ips("web-2")[0], 8080, text=f"echo {secret}").reply
    assert [way for way, words in underlay.seen.items() if secret.encode() in bytes(words)]
