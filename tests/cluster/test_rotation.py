"""The root of a cluster's CA replaced while pods talk: no connection is refused, none is cut, nobody is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from hack.kube import Cluster, layout, network
from hack.kube.controlplane import ADMIN
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
GET_CERTIFICATES = ["ambient", "get", "certificates", "-o", "json"]


def ambient_ca(*arguments: str) -> str:
    """As the cluster's admin runs it, beside kubectl."""
    command = [*network.into(layout.CONTROL_PLANE), sys.executable, "-m", "ambient", "ca", "--cluster", *arguments]
    environment = {**os.environ, "KUBECONFIG": str(layout.kubeconfig(ADMIN))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def roots() -> dict[str, str]:
    """By role."""
    return {row["role"]: row["root"] for row in json.loads(ambient_ca("status", "-o", "json"))}


def certificates(cluster: Cluster) -> list[dict[str, Any]]:
    """What every agent holds."""
    found = []
    pods = cluster.get("--namespace", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=ambient-agent")["items"]
    for pod in pods:
        name = pod["metadata"]["name"]
        said = cluster.kubectl("--namespace", NAMESPACE, "exec", name, "--", *GET_CERTIFICATES)
        found += json.loads(said)
    return found


def await_everywhere(cluster: Cluster, *, trusts: set[str], signed_by: str, within: float = 60) -> None:
    def there() -> bool:
        held = certificates(cluster)
        return len(held) >= 2 and all(
            (set(row["trusts"].split(",")), row["signed_by"], row["state"]) == (trusts, signed_by, "valid")
            for row in held
        )

    eventually(f"{signed_by} signs and {trusts} are trusted", there, within=within)


def test_a_rotation_under_traffic_refuses_and_cuts_nothing(talking: Space, cluster: Cluster, mesh: Mesh) -> None:
    web = talking.ips("web")[0]
    old = roots()["signs"]
    await_everywhere(cluster, trusts={old}, signed_by=old)
    with talking.puppet("client") as client:
        assert not client.open("talk", web, 8080).error
        client.do("chat", name="talk")
        client.do("newcomers", name="newcomers", to=web, port=8080)

        assert "is trusted, beside" in ambient_ca("rotate")
        new = roots()["will sign"]
        await_everywhere(cluster, trusts={old, new}, signed_by=old)

        assert f"root {new} signs" in ambient_ca("rotate", "--at-once")  # the waiting was done above
        cluster.kubectl("--namespace", NAMESPACE, "rollout", "restart", "daemonset/ambient-agent")
        mesh.await_rollout()  # what else would take half of a certificate's life: new agents have new certificates
        await_everywhere(cluster, trusts={old, new}, signed_by=new)

        assert "the rotation is finished" in ambient_ca("rotate", "--longest-hours", "0")
        await_everywhere(cluster, trusts={new}, signed_by=new)

        client.do("fresh", name="newcomers", times=100)
        newcomers, talk = client.do("finish", name="newcomers"), client.do("finish", name="talk")
    assert (newcomers.error, newcomers.failed) == ("", [])
    assert newcomers.worked > 100
    assert talk.error == ""
    assert roots() == {"signs": new}


def test_the_control_plane_was_refused_nothing_by_the_api_server(talking: Space, cluster: Cluster) -> None:
    """Its rights in the manifest are as narrow as they can be: one that lacks shows in its log only."""
    del talking  # it was told of captures, at least
    said = cluster.kubectl(
        "--namespace", NAMESPACE, "logs", "--tail=-1", "-l", "app.kubernetes.io/name=ambient-control"
    )
    assert "serving agents" in said
    assert "forbidden" not in said
