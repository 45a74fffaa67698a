"""What agent and engine may do on a node is what `daemonset.yaml` says, and nothing that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kube import Cluster, ClusterError
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space

pytestmark = pytest.mark.cluster
FILE = Path(__file__).parents[2] / "daemonset.yaml"
NUMBERS = {"NET_ADMIN": 12, "SYS_ADMIN": 21, "SYS_PTRACE": 19, "PERFMON": 38, "BPF": 39}  # linux/capability.h
RUNTIMES = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")  # what every container has
WHO = "system:serviceaccount:ambient-system:ambient-agent"


def pod_spec(daemonset: str) -> dict[str, Any]:
    for manifest in yaml.safe_load_all(FILE.read_text()):
        if (manifest["kind"], manifest["metadata"]["name"]) == ("DaemonSet", daemonset):
            found: dict[str, Any] = manifest["spec"]["template"]["spec"]
            return found
    raise AssertionError(f"no DaemonSet {daemonset}")


@pytest.fixture(params=["node1", "node2"])
def node(request: pytest.FixtureRequest, mesh: Mesh) -> str:
    del mesh  # only to be there
    return str(request.param)


def process(cluster: Cluster, daemonset: str, node: str) -> Path:
    """Of the daemon's pod on the node, as /proc has it."""
    chosen = ("-l", f"app.kubernetes.io/name={daemonset}", f"--field-selector=spec.nodeName={node}")
    (pod,) = cluster.get("pods", "--namespace", NAMESPACE, *chosen)["items"]
    return Path("/proc", str(Space(cluster, NAMESPACE).container(pod["metadata"]["name"])[0]))


def status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_an_agent_has_the_capabilities_of_the_file_and_can_gain_no_other(cluster: Cluster, node: str) -> None:
    (container,) = pod_spec("ambient-agent")["containers"]
    allowed = sum(1 << NUMBERS[name] for name in container["securityContext"]["capabilities"]["add"])
    found = status(process(cluster, "ambient-agent", node))
    assert {kind: int(found[kind], 16) for kind in ("CapEff", "CapPrm", "CapBnd")} == dict.fromkeys(
        ("CapEff", "CapPrm", "CapBnd"), allowed
    )
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_an_agent_can_write_to_the_mounts_of_the_file_alone(cluster: Cluster, node: str) -> None:
    (container,) = pod_spec("ambient-agent")["containers"]
    named = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    rows = (process(cluster, "ambient-agent", node) / "mountinfo").read_text().splitlines()
    mounts = {row.split()[4]: row.split()[5].split(",") for row in rows}
    assert "ro" in mounts["/"]
    writable = {point for point, options in mounts.items() if "rw" in options and not point.startswith(RUNTIMES)} | {
        point for point in named if "rw" in mounts[point]
    }
    assert writable == named


def test_an_engine_has_nothing(cluster: Cluster, node: str) -> None:
    running = process(cluster, "ambient-engine", node)
    found = status(running)
    assert {int(found[kind], 16) for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert set(found["Uid"].split()) == {"65534"}
    assert list((running / "root").iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "what", "may"),
    [
        ("get", ("daemonsets.apps/ambient-agent", "--namespace", NAMESPACE), True),
        ("watch", ("daemonsets.apps/ambient-agent", "--namespace", NAMESPACE), True),
        ("watch", ("daemonsets.apps", "--namespace", NAMESPACE), False),
        ("get", ("namespaces/ambient-system", "--namespace", NAMESPACE), True),
        ("get", ("daemonsets.apps/ambient-engine", "--namespace", NAMESPACE), False),
        ("list", ("daemonsets.apps", "--namespace", NAMESPACE), False),
        ("get", ("namespaces/kube-system", "--namespace", "kube-system"), False),
        ("list", ("namespaces",), False),
        ("get", ("secrets/ambient-ca", "--namespace", NAMESPACE), False),
        ("list", ("pods", "--all-namespaces"), False),
        ("patch", ("pods", "--all-namespaces"), False),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_in_the_api_an_agent_may_look_whether_it_is_removed_and_nothing_else(
    mesh: Mesh, cluster: Cluster, verb: str, what: tuple[str, ...], may: bool
) -> None:
    del mesh
    try:
        said = cluster.kubectl("auth", "can-i", "--quiet", f"--as={WHO}", verb, *what)
    except ClusterError:
        assert not may
    else:
        assert may, said
