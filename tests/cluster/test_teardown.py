"""`down` leaves nothing, wherever `up` was when it died."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.kube import Cluster, ClusterError, cgroups, down, layout, network
from tests.cluster.traces import traces
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]


def a_service_runs(name: str) -> bool:
    return any(cgroups.pids(path.parent) for path in cgroups.here().top.glob(f"**/{name}/cgroup.procs"))


MOMENTS: dict[str, Callable[[], object]] = {
    "its files are being written": layout.STATE.exists,
    "there is a network": network.ours,
    "the first node is there": lambda: a_service_runs("init"),
    "the API server starts": lambda: a_service_runs("kube-apiserver"),
    "a kubelet starts": lambda: a_service_runs("kubelet"),
}


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_is_left_of_an_up_that_was_killed_when(moment: str) -> None:
    up = subprocess.Popen([sys.executable, "-m", "hack.kube", "up"], cwd=ROOT)
    try:
        eventually(moment, MOMENTS[moment], within=60)
    finally:
        up.kill()
        up.wait()
    assert traces()
    with pytest.raises(ClusterError, match="make kube-down"):
        Cluster().up()
    assert down()
    assert traces() == []
    assert not down()
