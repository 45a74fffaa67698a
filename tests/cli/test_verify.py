"""`ambient verify` against admin sockets, and against a cluster whose kubectl is a script."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from observe.worlds import a_pod, a_world

from ambient.cli import kubectl, main
from ambient.cli.errors import Exit
from ambient.model.mesh import MtlsMode, PeerAuthentication
from ambient.observe.admin import Handler
from ambient.observe.evidence import Row, Seen, Witness, evidence

from .conftest import abandon, agents

Run = Callable[..., Result]
STRICT = PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT)
PODS = {"a": a_pod("shop/client-1", "10.0.0.2", node="a"), "b": a_pod("shop/web-1", "10.0.1.2", node="b")}


def told_by(node: str, *more: Any) -> Row:
    pod = PODS[node]
    certificate = {"not_after": "2999-01-01T00:00:00Z", "error": ""}
    knock = {"address": "10.0.0.2:9", "outcome": "refused", "reason": "strict_mtls", "rule": "shop/strict"}
    seen = {pod.key: Seen(state="captured", certificate=certificate, knocks=[knock])}
    paths = [{"direction": "in", "path": "tunnel", "ended": 2, "open": 1, "last": "T", "last_peer": "shop/x"}]
    return evidence(a_world(*PODS.values(), *more), "shop", Witness(node=node, seen=seen, paths=paths))


def verbs(node: str, *more: Any) -> dict[str, Handler]:
    async def answer(asked: dict[str, Any]) -> object:
        return told_by(node, *more) if asked["namespace"] == "shop" else evidence(a_world(), "none", Witness(node=node))

    return {"evidence": answer}


@pytest.fixture
def lab(places: Path) -> Iterator[Path]:
    nodes = places / "lab" / "one" / "nodes"
    with agents({nodes / node / "run" / "admin.sock": verbs(node, STRICT) for node in "ab"}):
        yield nodes


@pytest.mark.usefixtures("lab")
def test_a_proven_namespace_is_shown_pod_by_pod_and_ends_with_0(run: Run) -> None:
    result = run("verify", "shop")
    assert result.exit_code == Exit.OK, result.output
    lines = result.stdout.splitlines()
    assert lines[1].split()[:3] == ["shop/client-1", "a", "yes"]
    assert lines[2].endswith("STRICT  10.0.0.2:9 refused")
    assert lines[-1] == (
        "Proven: mutual TLS is on for namespace shop, 2 pods on 2 nodes: no TCP connection reaches them without, "
        "or from their own node without the kernel's proof of who it is."
    )


@pytest.mark.usefixtures("lab")
def test_json_says_the_same_every_time(run: Run) -> None:
    first, again = run("verify", "shop", "-o", "json"), run("verify", "shop", "-o", "json")
    assert first.stdout == again.stdout
    found = json.loads(first.stdout)
    assert (found["proven"], found["namespace"], found["problems"]) == (True, "shop", [])
    assert found["paths"][0]["ended"] == 4


def test_a_dead_agent_leaves_its_pods_unproven(places: Path, run: Run) -> None:
    nodes = places / "lab" / "one" / "nodes"
    (nodes / "b" / "run").mkdir(parents=True)
    abandon(nodes / "b" / "run" / "admin.sock")
    with agents({nodes / "a" / "run" / "admin.sock": verbs("a", STRICT)}):
        result = run("verify", "shop")
    assert result.exit_code == Exit.NO
    assert "not everything is shown: nobody listens at" in result.stderr
    assert "Not proven: shop/web-1: it is on node b, from which no agent answered" in result.stdout


def test_one_reason_for_several_pods_is_told_once(places: Path, run: Run) -> None:
    nodes = places / "lab" / "one" / "nodes"
    with agents({nodes / node / "run" / "admin.sock": verbs(node) for node in "ab"}):
        result = run("verify", "shop")
    assert result.exit_code == Exit.NO
    lines = result.stdout.splitlines()
    assert "Not proven: shop/client-1, shop/web-1: plaintext is accepted on its ports: PERMISSIVE" in result.stdout
    assert lines[-1] == "Mutual TLS is not proven for namespace shop: 2 reasons, above."


@pytest.mark.usefixtures("lab")
def test_one_node_can_be_proven_alone(run: Run) -> None:
    result = run("verify", "shop", "--node", "a")
    assert result.exit_code == Exit.OK, result.output
    assert "Note: only the pods of node a were judged" in result.stdout
    assert "1 pod on 1 node" in result.stdout


@pytest.mark.usefixtures("lab")
def test_a_namespace_nobody_knows_is_not_proven(run: Run) -> None:
    result = run("verify", "shpo")
    assert result.exit_code == Exit.NO
    assert "no agent knows this namespace" in result.stdout


KUBECTL = '''#!{python}
"""Pods as {place}/pods.json has them; in an agent's pod, what its admin socket answers."""
import json, pathlib, socket, sys
place = pathlib.Path({place!r})
words = sys.argv[1:]
if "get" in words:
    found = json.loads((place / "pods.json").read_text())
    print(json.dumps({{"items": found[words[words.index("--namespace") + 1]]}}))
elif "exec" in words:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(place / words[words.index("--stdin") + 1]))
        sock.sendall(sys.stdin.buffer.readline())
        sys.stdout.write(sock.makefile().readline())
'''


def a_kubernetes_pod(name: str, node: str = "", phase: str = "Running") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"nodeName": node}, "status": {"phase": phase}}


@pytest.fixture
def cluster(places: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    script = places / "kubectl"
    script.write_text(KUBECTL.format(python=sys.executable, place=str(places)))
    script.chmod(0o755)
    monkeypatch.setenv(kubectl.ENV, str(script))
    kubectl._command.cache_clear()
    daemonset = [a_kubernetes_pod("agent-b", "b"), a_kubernetes_pod("agent-a", "a")]
    daemonset.append(a_kubernetes_pod("agent-c", "c", "Pending"))
    shop = [
        a_kubernetes_pod("client-1", "a"),
        a_kubernetes_pod("web-1", "b"),
        a_kubernetes_pod("job", "b", "Succeeded"),
    ]
    (places / "pods.json").write_text(json.dumps({"ambient-system": daemonset, "shop": shop}))
    with agents({places / f"agent-{node}": verbs(node, STRICT) for node in "ab"}):
        yield places
    kubectl._command.cache_clear()


@pytest.mark.usefixtures("cluster")
def test_a_clusters_agents_are_asked_through_kubectl(run: Run) -> None:
    result = run("verify", "shop", "--cluster")
    assert result.exit_code == Exit.OK, result.output
    assert "2 pods on 2 nodes" in result.stdout


def test_a_pod_that_only_kubernetes_knows_is_named(cluster: Path, run: Run) -> None:
    pods = json.loads((cluster / "pods.json").read_text())
    pods["shop"].append(a_kubernetes_pod("new", "a"))
    (cluster / "pods.json").write_text(json.dumps(pods))
    result = run("verify", "shop", "--cluster")
    assert result.exit_code == Exit.NO
    assert "Not proven: shop/new: Kubernetes has this pod, no agent knows it" in result.stdout


def test_an_agent_that_cannot_be_reached_is_warned_of(cluster: Path, run: Run) -> None:
    os.unlink(cluster / "agent-b")
    result = run("verify", "shop", "--cluster")
    assert result.exit_code == Exit.NO
    assert "the agent in pod agent-b on node b cannot be asked" in result.stderr
    assert "shop/web-1: it is on node b" in result.stdout


@pytest.mark.usefixtures("cluster")
def test_other_questions_reach_the_cluster_as_well(run: Run) -> None:
    result = run("get", "workloads", "--cluster", "--node", "a")
    assert (result.exit_code, result.stderr) == (1, "Error: no verb 'workloads'; there are evidence\n")
    assert "its nodes are a, b" in run("get", "workloads", "--cluster", "--node", "z").stderr
    assert run("get", "workloads", "--cluster", "--lab", "one").exit_code == Exit.USAGE


def test_without_kubectl_it_is_said_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kubectl.ENV, "/nowhere/kubectl")
    kubectl._command.cache_clear()
    result = run("verify", "shop", "--cluster")
    kubectl._command.cache_clear()
    assert result.exit_code == Exit.LACKING
    assert "cannot run /nowhere/kubectl" in result.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no JSON", r"printed no list of objects but b'no JSON\n'"),
        ("echo 3", r"printed no list of objects but b'3\n'"),
        ("exit 7", "failed: it ended with 7"),
        ("echo 'E1129 19:49:33.6 1 memcache.go:265] \"Unhandled\"' >&2; echo refused >&2; exit 1", "failed: refused\n"),
    ],
    ids=["no JSON", "other JSON", "silent", "its log"],
)
def test_what_a_kubectl_that_cannot_tell_says_is_told(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    (tmp_path / "kubectl").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv(kubectl.ENV, str(tmp_path / "kubectl"))
    kubectl._command.cache_clear()
    result = run("verify", "shop", "--cluster")
    kubectl._command.cache_clear()
    assert result.exit_code == Exit.NOBODY
    assert said in result.stderr
    assert "E1129" not in result.stderr


def test_a_cluster_without_agents_is_nobody_to_ask(cluster: Path, run: Run) -> None:
    (cluster / "pods.json").write_text(json.dumps({"ambient-system": [], "shop": []}))
    result = run("verify", "shop", "--cluster")
    assert result.exit_code == Exit.NOBODY
    assert "no pod app.kubernetes.io/name=ambient-agent runs" in result.stderr


def test_the_near_end_passes_a_line_there_and_back(places: Path) -> None:
    with agents({places / "admin.sock": verbs("a", STRICT)}):
        result = CliRunner().invoke(main, ["ask"], input='{"verb": "evidence", "namespace": "shop"}\n')
    assert json.loads(result.stdout)["ok"]["node"] == "a"
    assert CliRunner().invoke(main, ["ask"], input="no line").exit_code == Exit.USAGE
    assert CliRunner().invoke(main, ["ask"], input="{}\n").exit_code == Exit.NOBODY
