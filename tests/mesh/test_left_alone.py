"""What the mesh does not know the kernel leaves alone, or refuses, by itself; and there is a record of each."""

from __future__ import annotations

import pytest

from tests.mesh.cluster import Mesh
from tests.mesh.manifests import enrolled, pod, server, service, shop, spiffe, traffic
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.kernel

FABRIC, PORT = "172.18.0.1", 8097  # outside of every node: nobody of the mesh
MANIFESTS = shop(
    enrolled("registry", outbound="registry-only"),
    pod("local", "node1", ns="registry"),
    enrolled("locked", require_mtls="true"),
    pod("careful", "node1", ns="locked"),
    server("plain", "node2", ns="outside"),
    service("plain", ns="outside"),
)
SHUT = traffic("shut", app="client", unknownDestinations="Refuse")


def dial(mesh: Mesh, name: str) -> str:
    """From shop/client, to be closed; its own address."""
    client = mesh.puppet("shop/client")
    assert client.open(name, FABRIC, PORT).error == ""
    return str(client.do("names", name=name).local)


def test_a_database_outside_costs_no_hop_after_the_first_connection(mesh: Mesh) -> None:
    client = mesh.puppet("shop/client")
    with mesh.listening("fabric", (FABRIC, PORT)) as came:
        dial(mesh, "first")
        eventually("the agent has answered", lambda: came() == 1)
        source = dial(mesh, "second")
        eventually("both came", lambda: came() == 2)
        found = {row["connection"].partition("-")[0]: row for row in mesh.agent("node1", "connections")}
        assert len(found) == 2
        assert found["direct"]["path"] == "plaintext"
        for name in ("first", "second"):
            client.do("close", name=name)
    row = mesh.record("source", source_address=source)
    assert (row["path"], row["verdict"], row["end"]) == ("plaintext", "allow", "closed")
    assert row["rule"] == f"{FABRIC} is unknown to the mesh"
    assert (row["destination_address"], row["dialled_address"]) == (f"{FABRIC}:{PORT}",) * 2
    assert row["source_principal"] == spiffe("client")


def test_where_it_is_forbidden_connect_itself_fails_with_its_record(mesh: Mesh) -> None:
    local = mesh.puppet("registry/local")
    assert local.ask(FABRIC, PORT).was_refused
    mesh.record("source", source_pod="local")
    mesh.mark()
    assert local.ask(FABRIC, PORT).error == "EPERM"
    row = mesh.record("source", source_pod="local")
    assert (row["verdict"], row["reason"], row["path"], row["end"]) == ("deny", "not_in_registry", "none", "refused")
    assert (row["destination_address"], row["dialled_address"]) == (f"{FABRIC}:{PORT}", "")


def test_what_would_be_in_the_clear_to_a_pod_of_the_cluster_is_refused_as_early(mesh: Mesh) -> None:
    careful = mesh.puppet("locked/careful")
    for expected in (None, "EPERM"):
        answer = careful.ask("plain.outside", family=4)
        assert answer.was_refused
        assert expected in (None, answer.error)
        assert mesh.record("source", source_pod="careful")["reason"] == "mtls_required"
        mesh.mark()


def test_a_policy_that_forbids_it_cuts_what_was_left_alone(mesh: Mesh) -> None:
    client = mesh.puppet("shop/client")
    with mesh.listening("fabric", (FABRIC, PORT)) as came:
        dial(mesh, "first")
        eventually("the agent has answered", lambda: came() == 1)
        source = dial(mesh, "second")
        eventually("both came", lambda: came() == 2)
        with mesh.having(SHUT):
            assert client.do("ended", name="second", timeout=1).how in ("reset", "closed", "ECONNABORTED")
            row = mesh.record("source", source_address=source)
            assert (row["end"], row["reason"]) == ("cut", "not_in_registry")
            assert client.ask(FABRIC, PORT).was_refused
            assert came() == 2
        for name in ("first", "second"):
            client.do("close", name=name)


def test_an_address_that_becomes_known_is_the_meshs_at_once(mesh: Mesh) -> None:
    client, vip = mesh.puppet("shop/client"), "10.96.77.77"
    assert client.ask(vip, 80, timeout=0.3).error, "nobody is there"
    before = mesh.metrics("node1")["ambient_kernel_verdicts"]
    assert before >= 1
    with mesh.having(service("late", selector="web", clusterIP=vip, ipFamilyPolicy="SingleStack")):
        mesh.mark()
        assert client.ask(vip, 80).who["pod"] == "web"
        assert mesh.record("source", source_pod="client")["path"] == "tunnel"
