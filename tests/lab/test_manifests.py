"""What the lab plays, what it refuses, and what it accepts with a note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ambient.lab import admission, cluster
from ambient.lab.admission import Admission
from ambient.sources import files
from tests.lab.builders import a_namespace, a_node, a_pod, a_service, documents

EXAMPLES = Path(__file__).parents[2] / "examples"


def judged(*manifests: dict[str, Any]) -> Admission:
    return admission.judge(cluster.INITIAL, documents(*manifests), new_uid=lambda: "uid")


def errors(*manifests: dict[str, Any]) -> list[str]:
    return [str(error) for error in judged(*manifests).errors]


def a_probe(**probe: Any) -> dict[str, Any]:
    """A pod with this readiness probe and a port called http."""
    return a_pod(container={"ports": [{"name": "http", "containerPort": 80}], "readinessProbe": probe})


def an_env(**variable: Any) -> dict[str, Any]:
    return a_pod(container={"env": [variable]})


def metadata(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **more}}


C, P = "spec.containers[0].", "spec.containers[0].readinessProbe."


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        pytest.param({"kind": "Deployment", "metadata": {"name": "x"}}, "kind: expected one of Namespace,", id="kind"),
        pytest.param({"kind": "Pods", "metadata": {"name": "x"}}, "did you mean Pod?), found 'Pods'", id="odd kind"),
        pytest.param([], "expected a Kubernetes object", id="no object"),
        pytest.param({"apiVersion": "v1", "kind": "Pod"}, "metadata.name: expected", id="no metadata"),
        pytest.param(a_node() | {"apiVersion": "v2"}, "apiVersion: expected v1, found 'v2'", id="version"),
        pytest.param(a_node("A_b"), "metadata.name: expected at most 40", id="bad name"),
        pytest.param(a_node("n" * 41), "part of the paths of sockets", id="long node"),
        pytest.param(a_namespace("a.b"), "metadata.name: expected a DNS label", id="dotted namespace"),
        pytest.param(a_service("a.b"), "metadata.name: expected a DNS label", id="dotted service"),
        pytest.param(metadata("Node", "n", lables={}), "metadata.lables: expected no such field (did", id="metadata"),
        pytest.param(metadata("Node", "n", labels={"a b": "c"}), "expected a key of letters", id="label key"),
        pytest.param(metadata("Node", "n", labels={"a": "c d"}), "expected a value of letters", id="label value"),
        pytest.param(metadata("Node", "n", labels={"a": 1}), "metadata.labels.a: expected text", id="label number"),
        pytest.param(metadata("Node", "n", annotations={"-": "x"}), "expected a key of letters", id="annotation"),
        pytest.param(a_node() | {"spec": {"taints": [{}]}}, "spec.taints: expected no such field", id="taints"),
        pytest.param(metadata("Pod", "x"), "spec: expected a mapping, found nothing", id="no spec"),
        pytest.param(a_pod() | {"spce": {}}, "spce: expected no such field (did you mean spec?)", id="beside spec"),
        pytest.param(a_pod(node="n"), "spec.node: expected no such field (did you mean nodeName?)", id="pod field"),
        pytest.param(a_pod(containers=[]), "spec.containers: expected at least one container", id="no container"),
        pytest.param(a_pod(containers=[7]), "spec.containers[0]: expected a mapping, found 7", id="odd container"),
        pytest.param(
            a_pod(container={"comand": []}), f"{C}comand: expected no such field (did you mean command?)", id="typo"
        ),
        pytest.param(a_pod(container={"command": "sleep 1"}), f"{C}command: expected a list of texts", id="a text"),
        pytest.param(a_pod(container={"command": None}), "programs of this machine, not images", id="no command"),
        pytest.param(a_pod(container={"command": []}), f"{C}command: expected a list", id="empty command"),
        pytest.param(a_pod(container={"args": [8080]}), f"{C}args[0]: expected text (quote numbers)", id="number"),
        pytest.param(a_pod(container={"livenessProbe": {"a": 1}}), "readinessProbe only", id="liveness"),
        pytest.param(a_pod(container={"volumeMounts": [{}]}), "the lab has no volumes", id="volumes"),
        pytest.param(
            a_pod(container={"ports": [{"containerPort": 80, "protocol": "SCTP"}]}), "TCP or UDP", id="protocol"
        ),
        pytest.param(a_pod(container={"ports": [{"containerPort": "80"}]}), "expected a port number", id="port text"),
        pytest.param(a_probe(), f"{P[:-1]}: expected one of tcpSocket, httpGet, exec", id="empty probe"),
        pytest.param(a_probe(exec={}), f"{P}exec.command: expected a list", id="no probe command"),
        pytest.param(a_probe(tcpSocket={}), f"{P}tcpSocket.port: expected a port", id="no probe port"),
        pytest.param(a_probe(tcpSocket={"port": "htp"}), "one of the container's ports, found 'htp'", id="probe name"),
        pytest.param(a_probe(tcpSocket={"port": 1, "host": "web"}), "host: expected an IP address", id="probe host"),
        pytest.param(a_probe(tcpSocket={"port": 1}, exec={"command": ["x"]}), "expected one of", id="two probes"),
        pytest.param(a_probe(tcpSocket={"port": 1}, periodSeconds="5"), "periodSeconds: expected a number", id="text"),
        pytest.param(a_probe(httpGet={"port": 1, "scheme": "ftp"}), "HTTP or HTTPS, found 'ftp'", id="scheme"),
        pytest.param(an_env(name="X", value=1), f"{C}env[0].value: expected text, found 1", id="env number"),
        pytest.param(an_env(value="1"), f"{C}env[0].name: expected a name, found nothing", id="env without name"),
        pytest.param(an_env(name="X", valueFrom={"secretKeyRef": {"a": 1}}), "plays fieldRef only", id="env secret"),
        pytest.param(
            an_env(name="X", valueFrom={"fieldRef": {"fieldPath": "metadata.lables"}}),
            "expected metadata.name or",
            id="ref",
        ),
        pytest.param(a_pod(initContainers=[{}]), "spec.initContainers: expected no such field", id="init"),
        pytest.param(a_pod(restartPolicy="Sometimes"), "spec.restartPolicy: expected Always or", id="restart policy"),
        pytest.param(a_pod(hostNetwork="yes"), "spec.hostNetwork: expected true or false", id="host network"),
        pytest.param(a_service(type="NodePort"), "spec.type: expected ClusterIP", id="service type"),
        pytest.param(a_service(ipFamilies=["IPv5"]), "spec.ipFamilies[0]: expected IPv4 or IPv6", id="family"),
        pytest.param(
            a_service(ipFamilies=["IPv6"], clusterIP="10.96.0.3"),
            "clusterIP: expected an address of one of the ipFamilies",
            id="families",
        ),
        pytest.param(a_service(sessionAffinity="ClientIP"), "spec.sessionAffinity: expected None", id="affinity"),
        pytest.param(a_service(externalIPs=["1.2.3.4"]), "spec.externalIPs: expected no such field", id="external"),
        pytest.param(
            a_service(ports=[{"name": "a", "port": 1}, {"name": "b", "port": 1}]),
            "ports[1].port: expected a port of its own",
            id="same port",
        ),
        pytest.param(
            a_service(ports=[{"name": "a", "port": 1}, {"name": "a", "port": 2}]),
            "spec.ports[1].name: expected a name of its own, found 'a'",
            id="same port name",
        ),
        pytest.param(
            a_service(ports=[{"name": "a", "port": 1}, {"port": 2}]),
            "spec.ports[1].name: expected a name, where there are several ports, found nothing",
            id="no port name",
        ),
        pytest.param(
            a_service(ports=[{"name": "Web", "port": 1}]),
            "spec.ports[0].name: expected a DNS label",
            id="port name",
        ),
        pytest.param(a_service(ports=[{"prot": 1}]), "spec.ports[0].prot: expected no such field", id="service port"),
    ],
)  # fmt: skip
def test_what_the_lab_cannot_play_is_refused_with_its_place(manifest: dict[str, Any], says: str) -> None:
    found = errors(a_namespace("shop"), manifest)
    assert any(says in text for text in found), found
    assert all(text.startswith("test: document 2") for text in found)


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        pytest.param(a_pod(container={"image": "nginx"}), f"{C}image: no image is pulled", id="image"),
        pytest.param(a_pod(container={"resources": {"limits": {}}}), f"{C}resources: the lab limits", id="resources"),
        pytest.param(a_pod(terminationGracePeriodSeconds=5), "ends programs at once", id="grace period"),
        pytest.param(a_pod(tolerations=[{"operator": "Exists"}]), "no taints", id="tolerations"),
    ],
)
def test_what_makes_no_difference_in_the_lab_is_accepted_with_a_note(manifest: dict[str, Any], says: str) -> None:
    found = judged(a_node(), a_namespace(), manifest)
    assert found.errors == ()
    (note,) = found.notes
    assert str(note).startswith("test: document 3 (Pod shop/web): spec.")
    assert says in str(note)


def test_what_an_api_server_or_a_default_writes_is_accepted_without_a_word() -> None:
    pod = a_pod(volumes=[], securityContext={}, dnsPolicy="ClusterFirst", container={"tty": False, "args": None})
    pod["metadata"] |= {"resourceVersion": "7", "uid": "x", "managedFields": [{}], "creationTimestamp": "2026-01-01"}
    pod["status"] = {"phase": "Running"}
    found = judged(a_node(), a_namespace(), pod, a_service(sessionAffinity="None", type="ClusterIP"))
    assert (found.errors, found.notes) == ((), ())
    (body,) = [body for key, body in found.objects.items() if key.kind == "Pod"]
    assert "args" not in body["spec"]["containers"][0]  # null is absent, also for whoever runs it


def test_all_errors_are_told_at_once_and_each_only_once() -> None:
    found = errors(a_pod(hostNetwork="yes", nodeNaem="x"), a_service(type="NodePort"), a_service("other", spec=1))
    assert [text.partition(": expected")[0] for text in found] == [
        "test: document 1 (Pod shop/web): spec.hostNetwork",
        "test: document 1 (Pod shop/web): spec.nodeNaem",
        "test: document 2 (Service shop/web): spec.type",
        "test: document 3 (Service shop/other): spec.spec",
    ]


def test_the_meshs_own_parser_has_its_say_with_the_place() -> None:
    bad = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"action": "PERHAPS"},
    }
    (error,) = errors(a_node(), a_namespace(), bad)
    assert error.startswith("test: document 3 (AuthorizationPolicy shop/p): spec.action: expected ALLOW or DENY")


def test_the_examples_are_accepted_without_a_note() -> None:
    paths = [EXAMPLES / "shop.yaml", EXAMPLES / "shop-policies.yaml", EXAMPLES / "shop-egress.yaml"]
    result = admission.judge(cluster.INITIAL, *files.documents(paths), new_uid=lambda: "uid")
    assert (result.errors, result.notes) == ((), ())
