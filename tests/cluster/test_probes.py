"""kubelet's probes of every kind: who is well is Ready, who is not is neither Ready nor let be."""

from __future__ import annotations

import pytest

from tests.cluster.manifests import PROBED, Manifest, pod
from tests.cluster.space import Space

pytestmark = pytest.mark.cluster
PROBES: dict[str, Manifest] = {
    "exec": {"exec": {"command": ["sh", "-c", "! test -e /tmp/sick"]}},
    "grpc": {"grpc": {"port": 8083}},
    "http": {"httpGet": {"path": "/", "port": 8081}},
    "tcp": {"tcpSocket": {"port": 8082}},
}
OFTEN = {"periodSeconds": 1, "failureThreshold": 1}


@pytest.mark.parametrize("kind", PROBES)
def test_a_readiness_probe_follows_the_program(space: Space, kind: str) -> None:
    probes = {"startupProbe": {**PROBES[kind], "periodSeconds": 1, "failureThreshold": 60}}
    space.run(pod("probed", "node1", *PROBED, container=probes | {"readinessProbe": PROBES[kind] | OFTEN}))
    space.exec("probed", "touch", "/tmp/sick")
    space.kubectl("wait", "--for=condition=Ready=false", "--timeout=30s", "pod/probed")
    space.exec("probed", "rm", "/tmp/sick")
    space.await_ready("probed")


@pytest.mark.parametrize("kind", PROBES)
def test_a_liveness_probe_ends_the_program_that_is_not_well(space: Space, kind: str) -> None:
    probes = {"startupProbe": {**PROBES[kind], "periodSeconds": 1, "failureThreshold": 60}}
    space.run(pod("probed", "node2", *PROBED, container=probes | {"livenessProbe": PROBES[kind] | OFTEN}))
    space.exec("probed", "touch", "/tmp/sick")
    once = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1"
    space.kubectl("wait", once, "--timeout=60s", "pod/probed")
    space.await_ready("probed")  # a new container has no /tmp/sick
