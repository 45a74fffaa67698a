"""What docs/install.md tells people to do, done: apply twice, run the smoke test, prove that mutual TLS is on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kube import Cluster, ClusterError, layout
from tests.cluster.manifests import Manifest, server
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
CLI = f"{sys.executable} -m ambient"
WRITTEN = "deployments,daemonsets,services,networkpolicies,poddisruptionbudgets,roles,rolebindings,serviceaccounts"
API_SERVER = layout.CONTROL_PLANE_IPS[0]  # outside of every node: unknown to the mesh


def policy(kind: str, spec: Any, name: str = "here") -> Manifest:
    return {"apiVersion": "ambient.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    """As a user at their own machine, who has kubectl."""
    env = {**os.environ, "AMBIENT_KUBECTL": str(layout.KUBECTL)}
    return subprocess.run([*CLI.split(), *words], capture_output=True, text=True, check=False, env=env, cwd=ROOT)


@pytest.fixture(scope="module")
def enrolled(mesh: Mesh, cluster: Cluster) -> Iterator[Space]:
    del mesh  # only to be there
    space = Space(cluster, "proven")
    space.create(**{"ambient.dev/mode": "enabled"})
    space.run(server("web", "node2"), server("client", "node1"))
    eventually("both are captured", lambda: not {"captured"} & claims(verify(space)), within=30)
    yield space
    cluster.kubectl("delete", "namespace", space.name)


def verify(space: Space) -> Any:
    done = cli("verify", space.name, "--cluster", "-o", "json")
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["proven"] else 1), done.stderr
    return found


def claims(found: Any) -> set[str]:
    return {row["claim"] for row in found["problems"]}


def generations(cluster: Cluster) -> dict[str, int]:
    rows = cluster.get("--namespace", NAMESPACE, WRITTEN)["items"]
    rows += cluster.get("customresourcedefinitions,clusterroles,clusterrolebindings")["items"]
    return {f"{row['kind']}/{row['metadata']['name']}": row["metadata"].get("generation", 0) for row in rows}


@pytest.mark.usefixtures("mesh")
def test_applying_the_file_again_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    manifests = [body for body in yaml.safe_load_all((ROOT / "daemonset.yaml").read_text()) if body]
    file = tmp_path / "daemonset.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
    before = generations(cluster)
    assert cluster.kubectl("diff", "--server-side", f"--filename={file}") == "", "kubectl diff fails where there is one"
    cluster.kubectl("apply", "--server-side", f"--filename={file}")
    assert generations(cluster) == before


@pytest.mark.usefixtures("mesh")
def test_the_smoke_test_passes_and_leaves_nothing(cluster: Cluster) -> None:
    env = {**os.environ, "KUBECTL": str(layout.KUBECTL), "AMBIENT": CLI}
    done = subprocess.run(["hack/smoke.sh"], capture_output=True, text=True, check=False, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "smoke: all is well"
    assert "Proven: mutual TLS is on for namespace ambient-smoke, 3 pods" in done.stdout
    assert "smoke" not in cluster.kubectl("get", "namespaces", "--output=name")


def test_verify_names_what_is_missing_until_it_is_there(enrolled: Space, shop: Space) -> None:
    assert claims(verify(enrolled)) == {"strict"}
    enrolled.apply(policy("PeerAuthentication", {"mtls": {"mode": "STRICT"}}))
    found = eventually("it is proven", lambda: (row := verify(enrolled))["proven"] and row, within=20)
    assert {row["pod"]: row["node"] for row in found["pods"]} == {"proven/client": "node1", "proven/web": "node2"}
    assert claims(verify(shop)) == {"enrolled"}
    assert claims(json.loads(cli("verify", "nowhere", "--cluster", "-o", "json").stdout)) == {"pods"}


def test_other_questions_reach_every_agent_as_well(enrolled: Space) -> None:
    rows = json.loads(cli("get", "workloads", "--cluster", "-o", "json").stdout)
    states = {row["name"]: (row["node"], row["state"]) for row in rows if row["namespace"] == enrolled.name}
    assert states == {"web": ("node2", "captured"), "client": ("node1", "captured")}


def test_a_traffic_policy_is_accepted_and_keeps_pods_inside(enrolled: Space) -> None:
    with enrolled.puppet("client") as client:
        assert not client.open("before", API_SERVER, layout.API_PORT).error
        enrolled.apply(policy("TrafficPolicy", {"outbound": {"unknownDestinations": "Refuse"}}))
        for condition in ("Accepted", "Enforced"):
            enrolled.kubectl(
                "wait", f"--for=condition={condition}", "--timeout=20s", "trafficpolicies.ambient.dev/here"
            )
        eventually("nobody gets out", lambda: client.ask(API_SERVER, layout.API_PORT).was_refused)
        assert client.ask(enrolled.ips("web")[0], 8080).who["pod"] == "web"
        allowed = [{"cidrs": [API_SERVER], "ports": [layout.API_PORT]}]
        spec = {"outbound": {"unknownDestinations": "Refuse", "allowed": allowed}}
        enrolled.apply(policy("TrafficPolicy", spec))
        eventually("what is listed is let out", lambda: not client.open("after", API_SERVER, layout.API_PORT).error)
    enrolled.kubectl("delete", "trafficpolicies.ambient.dev/here")


@pytest.mark.parametrize(
    ("outbound", "said"),
    [
        pytest.param({}, "say mtls or unknownDestinations", id="nothing"),
        pytest.param({"mtls": "STRICT"}, "Unsupported value", id="a word that is none"),
        pytest.param({"mtls": "Required", "unknown": "Refuse"}, "unknown field", id="a field that does not exist"),
        pytest.param(
            {"mtls": "Required", "allowed": [{"cidrs": ["10.0.0.1"]}]}, "exceptions", id="exceptions of nothing"
        ),
        pytest.param(
            {"unknownDestinations": "Refuse", "allowed": [{"cidrs": ["db.example"]}]}, "CIDR block", id="a host name"
        ),
        pytest.param(
            {"unknownDestinations": "Refuse", "allowed": [{"cidrs": ["10.0.0.1"], "ports": [0]}]}, "ports", id="port 0"
        ),
    ],
)
def test_the_api_server_refuses_a_traffic_policy_that_the_mesh_would(enrolled: Space, outbound: Any, said: str) -> None:
    with pytest.raises(ClusterError, match=said):
        enrolled.apply(policy("TrafficPolicy", {"outbound": outbound}, "wrong"))
