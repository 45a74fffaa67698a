"""A thousand connections at once, twenty thousand one after the other: no error, and everything is given back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests import slowness
from tests.mesh import kernel
from tests.mesh.cluster import NODES, Mesh, open_files, rss
from tests.mesh.manifests import PORTS, pod, server, shop
from tests.mesh.waiting import eventually
from tests.mesh.wire import Wire

pytestmark = [pytest.mark.kernel, pytest.mark.alone, pytest.mark.timeout(slowness.seconds(120))]

MANIFESTS = [*shop(pod("crowd", "node1")), server("sink", "node2", "quiet")]
CROWD, CHURN = 1000, 20_000
MEMORY_EACH = 32 << 10
KiB, MiB = 1 << 10, 1 << 20


def engines(mesh: Mesh) -> dict[str, int]:
    return {node: mesh.engine_pid(node) for node in NODES}


def connections(mesh: Mesh) -> int:
    return sum(mesh.connections(node) for node in NODES)


def test_at_rest_the_agent_and_the_engine_are_small(mesh: Mesh) -> None:
    for node in NODES:
        assert rss(mesh.agent_pid(node)) < 60 * MiB
        assert rss(mesh.engine_pid(node)) < 10 * MiB


def test_at_rest_they_do_nothing(mesh: Mesh) -> None:
    def ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    pids = [mesh.agent_pid(node) for node in NODES] + list(engines(mesh).values())
    before, began = [ticks(pid) for pid in pids], time.monotonic()
    eventually("two seconds are over", lambda: time.monotonic() - began > 2)
    assert all(ticks(pid) - was <= 10 for pid, was in zip(pids, before, strict=True)), "100 ms in 2 s"


def test_a_killed_agent_is_ready_within_two_seconds(mesh: Mesh) -> None:
    dead = mesh.kill_agent("node1")
    began = time.monotonic()
    mesh.await_agent("node1", dead)
    assert time.monotonic() - began < 2.0


def test_a_thousand_connections_at_once_cost_little_each(mesh: Mesh, wire: Wire) -> None:
    crowd, to = mesh.puppet("shop/crowd"), mesh.ip("shop/sink")
    assert not crowd.ask(to, 8080).error  # tunnels and code are warm
    pids = engines(mesh)
    before = {node: rss(pid) for node, pid in pids.items()}
    came = crowd.do("crowd", to=to, port=8080, count=CROWD)
    assert (came.open, came.errors) == (CROWD, {})
    assert crowd.do("crowd_says", text="all of us " + "x" * 200).errors == {}
    assert connections(mesh) == 2 * CROWD
    for node, pid in pids.items():
        each = (rss(pid) - before[node]) / CROWD
        assert each <= MEMORY_EACH, f"{node}: {each / KiB:.1f} KiB each"
    crowd.do("crowd_leaves")
    eventually("all are over", lambda: connections(mesh) == 0)
    mesh.await_records(CROWD + 1)
    assert engines(mesh) == pids, "the engines of the beginning"
    assert wire.tunnels()


def test_twenty_thousand_short_connections_leave_nothing_behind(mesh: Mesh) -> None:
    crowd, to = mesh.puppet("shop/crowd"), mesh.ip("shop/sink")
    assert crowd.do("churn", to=to, ports=PORTS, count=1000).errors == {}
    pids = engines(mesh)
    eventually("a calm beginning", lambda: connections(mesh) == 0)
    memory = {node: rss(pid) for node, pid in pids.items()}
    agents = {node: rss(mesh.agent_pid(node)) for node in NODES}
    files = {node: open_files(pid) for node, pid in pids.items()}
    done = crowd.do("churn", to=to, ports=PORTS, count=CHURN, patience=100)
    assert done.errors == {}
    eventually("all are over", lambda: connections(mesh) == 0)
    for node, pid in pids.items():
        assert rss(pid) - memory[node] < 2 * MiB, f"{node}: {(rss(pid) - memory[node]) / KiB:.0f} KiB more"
        assert rss(mesh.agent_pid(node)) - agents[node] < 8 * MiB
        eventually("descriptors are back", lambda node=node, pid=pid: open_files(pid) <= files[node] + 16)
        eventually("no client is remembered", lambda node=node: kernel.entries(mesh, node, "clients") == 0)
    assert engines(mesh) == pids


def test_the_metrics_count_what_the_records_tell(mesh: Mesh) -> None:
    before = _total(mesh.metrics("node2"), "istio_tcp_connections_opened_total", "web")
    for _ in range(5):
        assert not mesh.puppet("shop/client").ask("web").error
    eventually("records", lambda: len(mesh.records("destination")) == 5)
    assert _total(mesh.metrics("node2"), "istio_tcp_connections_opened_total", "web") - before == 5


def _total(samples: dict[str, float], name: str, workload: str) -> float:
    wanted = (f'destination_workload="{workload}"', 'reporter="destination"', 'connection_security_policy="mutual_tls"')
    return sum(
        value for key, value in samples.items() if key.startswith(name + "{") and all(each in key for each in wanted)
    )
