"""What others made of the nodes' network is theirs: installed, used and uninstalled, the mesh changes none of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.kube import Cluster
from tests.cluster.footprint import Footprint, differences, settled
from tests.cluster.manifests import ENROL, LEAVE, server, service
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
INSTALLED = Path(__file__).parents[2] / "daemonset.yaml"
PODS = {"web-1": "node1", "web-2": "node2", "client": "node1"}
FILES = "find /etc/cni/net.d /opt/cni/bin"
PLUGINS = (f"{FILES} -type f -exec sha256sum {{}} +", f"{FILES} -printf '%M %u %g %p\\n'")


def plugins(cluster: Cluster) -> Footprint:
    """The files of the nodes' CNI plugins: contents, modes and owners."""
    return {
        f"{name} {command}": sorted(node.run(["sh", "-c", command]).stdout.splitlines())
        for name, node in cluster.nodes.items()
        for command in PLUGINS
    }


def test_rules_routes_and_plugins_are_what_they_were_with_the_mesh_and_after_it(cluster: Cluster, space: Space) -> None:
    labels = {"app": "web"}
    space.apply(service("web"))
    space.run(*(server(name, on, labels=labels if name != "client" else None) for name, on in PODS.items()))
    before, files = settled(cluster, without=NAMESPACE), plugins(cluster)
    with Mesh(cluster, INSTALLED):
        space.kubectl("label", "namespace", space.name, ENROL)
        eventually("every pod is captured", lambda: space.captured() == set(PODS), within=30)
        with space.puppet("client") as client:
            assert {client.ask("web").who["pod"] for _ in range(40)} == {"web-1", "web-2"}
        assert differences(before, settled(cluster, without=NAMESPACE)) == []
        space.kubectl("label", "namespace", space.name, LEAVE)
        eventually("no pod is captured", lambda: not space.captured(), within=30)
    assert differences(before, settled(cluster, without=NAMESPACE)) == []
    assert differences(files, plugins(cluster)) == []
    with space.puppet("client") as client:
        assert {client.ask("web").who["pod"] for _ in range(40)} == {"web-1", "web-2"}
