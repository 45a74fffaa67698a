"""`ambient verify` on a lab: proven, and each thing that would make it untrue is named."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from ambient.cli import main
from ambient.lab import linux
from ambient.model.mesh import TUNNEL_PORT
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import PORTS, mtls, pod, server, shop
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.kernel

MANIFESTS = [*shop(), mtls("STRICT")]
Found = dict[str, Any]


def verify(mesh: Mesh, namespace: str = "shop") -> Found:
    result = CliRunner().invoke(main, ["verify", namespace, "--lab", mesh.layout.lab, "-o", "json"])
    found: Found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["proven"] else 1)
    return found


def problems(found: Found) -> list[tuple[str, str]]:
    return [(row["about"], row["claim"]) for row in found["problems"]]


def test_a_strict_namespace_is_proven_by_connections_that_were_really_refused(mesh: Mesh) -> None:
    assert mesh.puppet("shop/client").ask("web").error == ""
    found = verify(mesh)
    assert problems(found) == []
    assert {row["pod"]: tuple(each["reason"] for each in row["knocks"]) for row in found["pods"]} == dict.fromkeys(
        ["shop/client", "shop/near", "shop/web"], ("strict_mtls", "strict_mtls")
    )
    assert len(mesh.records("destination")) == 7, "the client's, and one of our own for each address of each pod"
    assert mesh.events("shop/web", "line") != [], "only the client was served"
    tunnels = [row for row in found["paths"] if row["path"] == "tunnel"]
    assert [(row["direction"], row["ended"] + row["open"]) for row in tunnels] == [("in", 1), ("out", 1)]


def test_nobody_outside_the_mesh_is_proven(mesh: Mesh) -> None:
    assert problems(verify(mesh, "outside")) == [("outside/stranger", "enrolled")]
    assert problems(verify(mesh, "nowhere")) == [("nowhere", "pods")]


def test_permissive_is_named_with_who_says_so(mesh: Mesh) -> None:
    with mesh.having(mtls("PERMISSIVE", name="web", app="web")):
        found = verify(mesh)
    assert problems(found) == [("shop/web", "strict")]
    assert "PeerAuthentication shop/web" in found["problems"][0]["found"]
    assert verify(mesh)["proven"]


def test_an_excluded_port_is_named(mesh: Mesh) -> None:
    with mesh.having(pod("leaky", "node1", annotations={"ambient.dev/exclude-inbound-ports": "9999"})):
        found = verify(mesh)
    assert problems(found) == [("shop/leaky", "excluded")]
    assert "9999" in found["problems"][0]["found"]


def test_a_pod_that_stays_outside_is_named(mesh: Mesh) -> None:
    with mesh.having(pod("out", "node1", labels={"ambient.dev/mode": "disabled"})):
        assert problems(verify(mesh)) == [("shop/out", "enrolled")]


def test_a_connection_older_than_the_capture_is_named_until_it_ends(mesh: Mesh) -> None:
    outside = {"ambient.dev/mode": "disabled"}
    late = server("late", "node2", labels=outside)
    with mesh.having(late):
        mesh.learn()
        with linux.inside_netns(mesh.fabric_netns):
            old = socket.create_connection((mesh.ip("shop/late"), PORTS[0]), 3)
        with old:
            mesh.label("pod/shop/late", "ambient.dev/mode-")
            found = verify(mesh)
            assert problems(found) == [("shop/late", "clear")]
            assert f"(port {PORTS[0]})" in found["problems"][0]["found"]
        eventually("it is proven", lambda: verify(mesh)["proven"])
    mesh.learn()


def test_what_an_app_had_on_the_tunnels_port_before_its_capture_is_no_tunnel(mesh: Mesh) -> None:
    outside = {"ambient.dev/mode": "disabled"}
    with mesh.having(server("late", "node2", ports=(TUNNEL_PORT,), labels=outside)):
        mesh.learn()
        with linux.inside_netns(mesh.fabric_netns):
            old = socket.create_connection((mesh.ip("shop/late"), TUNNEL_PORT), 3)
        with old:
            assert mesh.puppet("shop/client").ask("web").error == ""  # tunnels are open, too
            mesh.label("pod/shop/late", "ambient.dev/mode-")
            found = verify(mesh)
            assert problems(found) == [("shop/late", "clear")]
            assert f"(port {TUNNEL_PORT})" in found["problems"][0]["found"]
    mesh.learn()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_engine_that_judges_nothing_proves_nothing(mesh: Mesh) -> None:
    with stopped(mesh.engine_pid("node2")):
        found = verify(mesh)
    refusals = [(pod, "refusal") for pod in ("shop/near", "shop/web") for _ in range(2)]  # at each address
    assert problems(found) == [("node node2", "agent"), *refusals]
    mesh.settle()


def test_a_dead_agents_pods_are_named(mesh: Mesh) -> None:
    with mesh.without_agent("node2"):
        found = verify(mesh)
    assert problems(found) == [("shop/near", "agent"), ("shop/web", "agent")]
    assert "node2" in found["problems"][0]["found"]
    assert verify(mesh)["proven"]
