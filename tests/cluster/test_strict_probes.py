"""kubelet's probes of every kind and purpose where only mutual TLS is taken: as they are without a mesh."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hack.kube import Cluster
from tests.cluster.manifests import PROBED, SERVER, STRICT, pod
from tests.cluster.mesh import Mesh
from tests.cluster.space import Space
from tests.cluster.test_probes import OFTEN, PROBES
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
NAMED, UNNAMED = 8079, 8080
SICK_AT_FIRST = ("sh", "-c", f"touch /tmp/sick; exec {' '.join(PROBED)}")
DIAL = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as sock:
        sock.sendall(b"who\\n")
        print(sock.makefile().readline())
except ConnectionError:
    pass
"""


@pytest.fixture(scope="module")
def strict(mesh: Mesh, cluster: Cluster) -> Iterator[Space]:
    """A namespace of the mesh that takes mutual TLS only, with a server on two ports of which a probe names one."""
    del mesh  # only to be there
    space = Space(cluster, "strict")
    space.create(**{"ambient.dev/mode": "enabled"})
    space.apply(STRICT)
    ready = {"readinessProbe": {"tcpSocket": {"port": NAMED}, "periodSeconds": 1}}
    space.run(pod("two-ports", "node1", *SERVER, str(NAMED), str(UNNAMED), container=ready))
    yield space
    cluster.kubectl("delete", "namespace", space.name)


@pytest.mark.parametrize("kind", PROBES)
def test_probes_see_the_program_as_it_is(strict: Space, kind: str) -> None:
    """startup: it is waited for; readiness: no traffic while it is not well; liveness: it is ended when it stays so."""
    name = f"probed-{kind}"
    probes = {
        "startupProbe": {**PROBES[kind], "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": PROBES[kind] | OFTEN,
        "livenessProbe": {**PROBES[kind], "periodSeconds": 1, "failureThreshold": 5},
    }
    strict.apply(pod(name, "node2", *SICK_AT_FIRST, container=probes))
    eventually("a startup probe that fails", lambda: _failed(strict, name, "Startup"), within=60)
    strict.exec(name, "rm", "/tmp/sick")
    strict.await_ready(name)
    assert name in strict.captured()
    strict.exec(name, "touch", "/tmp/sick")
    strict.kubectl("wait", "--for=condition=Ready=false", "--timeout=30s", f"pod/{name}")
    once = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1"
    strict.kubectl("wait", once, "--timeout=60s", f"pod/{name}")
    assert _failed(strict, name, "Readiness")
    assert _failed(strict, name, "Liveness")
    strict.kubectl("delete", "pod", name, "--wait=false")


def _failed(space: Space, name: str, purpose: str) -> bool:
    found = space.cluster.get("--namespace", space.name, "events", "--field-selector", f"involvedObject.name={name}")
    return any(
        each["reason"] == "Unhealthy" and each["message"].startswith(f"{purpose} probe ") for each in found["items"]
    )


def test_the_program_sees_the_same_prober_as_without_a_mesh(strict: Space, shop: Space) -> None:
    probers = {
        space.name: {
            json.loads(line)["peer"].rpartition(":")[0]
            for line in space.kubectl("logs", name).splitlines()
            if '"accept"' in line and f':{port}"' in line
        }
        for space, name, port in ((strict, "two-ports", NAMED), (shop, "web-1", 8080))
    }
    assert probers[strict.name]
    assert probers[strict.name] <= probers[shop.name], "others dial there too"


@pytest.mark.parametrize(("port", "answers"), [(NAMED, True), (UNNAMED, False)], ids=["named", "not named"])
def test_the_node_reaches_the_port_that_a_probe_names_and_no_other(
    strict: Space, cluster: Cluster, port: int, answers: bool
) -> None:
    for ip in strict.ips("two-ports"):
        said = cluster.nodes["node1"].run(["python3", "-c", DIAL, ip, str(port)]).stdout
        assert ("two-ports" in said) is answers, said
