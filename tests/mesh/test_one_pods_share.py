"""One pod does its worst: the others of its node go on as if nothing was, and nothing of it is lost silently."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import slowness
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import PORTS, enrolled, mtls, pod, shop
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.kernel

MANIFESTS = [
    *shop(),
    mtls("STRICT"),
    pod("scanner", "node1"),
    enrolled("registry", outbound="registry-only"),
    pod("local", "node1", ns="registry"),
]
SILENT = "198.18.0.0/15"  # for benchmarks (RFC 2544): nobody answers, nobody says that nobody is there
DIALS = 15_000  # two descriptors each would be more than an engine may have (20,000 where these tests run)
UNKNOWN, PORT = "203.0.113.9", 80
KNOCKING_S = 3.0


@pytest.fixture
def silence(mesh: Mesh) -> Iterator[None]:
    """The fabric takes what is sent there and answers nothing."""
    words = ["nsenter", f"--net={mesh.fabric_netns}", "ip", "route"]
    subprocess.run([*words, "add", "blackhole", SILENT], check=True)
    yield
    subprocess.run([*words, "del", "blackhole", SILENT], check=True)


def engine_files(mesh: Mesh, node: str) -> int:
    return len(os.listdir(f"/proc/{mesh.engine_pid(node)}/fd"))


def took(mesh: Mesh) -> float:
    """Seconds that the slowest of some connections of another pod needs; none may fail."""
    slowest, client = 0.0, mesh.puppet("shop/client")
    for to, port in [("web", 80), *((mesh.ip("shop/web"), port) for port in PORTS)]:
        began = time.monotonic()
        assert not client.ask(to, port).error
        slowest = max(slowest, time.monotonic() - began)
    return slowest


@pytest.mark.usefixtures("silence")
def test_a_scan_keeps_no_other_pod_of_its_node_from_connecting(mesh: Mesh) -> None:
    scanner = mesh.puppet("shop/scanner")
    assert not mesh.puppet("shop/client").ask("web").error  # of the others the agent will hear when it is busy
    scanner.do("scan", network=SILENT, count=DIALS)
    until, slowest, most = time.monotonic() + 5, 0.0, 0
    while time.monotonic() < until:
        slowest = max(slowest, took(mesh))
        most = max(most, engine_files(mesh, "node1"))
    assert slowest < slowness.seconds(1.0)
    assert most < 10_000
    scanner.do("scan_ends")
    mesh.quiet(within=15)


def test_a_loop_of_refused_dials_delays_nobody_and_has_a_record_of_each(mesh: Mesh) -> None:
    local = mesh.puppet("registry/local")
    before = mesh.metrics("node1").get("ambient_records_dropped_total", 0)
    assert local.ask(UNKNOWN, PORT).was_refused  # by the agent: from now on the kernel does
    with ThreadPoolExecutor(1) as meanwhile:
        knocking = meanwhile.submit(local.do, "knock", to=UNKNOWN, port=PORT, seconds=KNOCKING_S)
        slowest = 0.0
        while not knocking.done():
            slowest = max(slowest, took(mesh))
    knocked = knocking.result()
    assert knocked.refused > 10_000
    assert slowest < slowness.seconds(1.0)
    total = 1 + knocked.refused + knocked.others
    records = lambda: [row for row in mesh.records("source") if row["source_pod"] == "local"]  # noqa: E731
    eventually("all are told of", lambda: len(records()) >= total, within=20)
    rows = records()
    assert (len(rows), {row["end"] for row in rows}) == (total, {"refused"})
    assert mesh.metrics("node1").get("ambient_records_dropped_total", 0) == before
