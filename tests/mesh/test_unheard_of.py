"""An address of a pod network that no pod is known to have: its pod may want mTLS, so nothing plain goes there."""

from __future__ import annotations

import ipaddress
import subprocess
import threading

import pytest

from ambient.dataplane import waiting
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import server, shop
from tests.mesh.puppets import Answer
from tests.mesh.waiting import eventually
from tests.mesh.wire import Wire

pytestmark = pytest.mark.kernel

MANIFESTS = shop()
PORT = 8097
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def beside(mesh: Mesh, pod: str, version: int, last: int) -> str:
    """An address of the pod network of this pod's node."""
    network = ipaddress.ip_network((mesh.ip(pod, version), 24 if version == 4 else 64), strict=False)
    return str(network[last])


@FAMILIES
def test_it_waits_for_the_news_and_is_refused_without_a_byte_on_the_wire(mesh: Mesh, version: int) -> None:
    client, nobody = mesh.puppet("shop/client"), beside(mesh, "shop/web", version, 250)
    with Wire(mesh, ["shop/client"]) as wire:
        answer = client.ask(nobody, PORT, timeout=2 * waiting.LONGEST_S)
        assert answer.was_refused
        row = mesh.record("source", source_pod="client")
        assert (row["verdict"], row["reason"], row["path"]) == ("deny", "unknown_pod", "none")
        assert client.ask(nobody, PORT).error == "EPERM", "the kernel knows by now"
    assert wire.findings() == []
    assert not [way for way in wire.streams() if str(way.destination) == nobody]


def test_a_pod_that_is_dialled_before_the_mesh_knows_it_gets_a_tunnel(mesh: Mesh) -> None:
    client, news = mesh.puppet("shop/client"), server("news", "node2", account="web")
    with mesh.having(news):
        mesh.learn()
        before = mesh.ip("shop/news")
    said: list[Answer] = []
    # The lab gives an address again only after all others; the one that comes next is dialled before it is anybody's.
    at = str(ipaddress.ip_address(before) + 1)
    dialling = threading.Thread(target=lambda: said.append(client.ask(at, 8080, timeout=10.0)))
    mesh.mark()
    dialling.start()
    eventually("it is held", lambda: mesh.connections("node1") == 1)
    with Wire(mesh, ["shop/client"]) as wire, mesh.having(news):
        mesh.learn()
        assert mesh.ip("shop/news") == at
        dialling.join()  # its app need not listen yet
        assert mesh.record("source", source_pod="client")["path"] == "tunnel", said
        eventually("it answers", lambda: client.ask(at, 8080).error == "")
    assert wire.findings() == []


@FAMILIES
def test_the_nodes_own_address_in_its_pod_network_is_the_nodes(mesh: Mesh, version: int) -> None:
    client, gateway = mesh.puppet("shop/client"), beside(mesh, "shop/client", version, 1)
    bridge = ["ip", "address", "add", gateway, "dev", "lo", *(["nodad"] if version == 6 else [])]
    mesh.inside("node1", lambda: subprocess.run(bridge, check=True))
    # The agent asks for its node's addresses when the mesh changes, as it does with the first pod on a bridge.
    with mesh.having(server(f"any{version}", "node1")), mesh.listening("node1", (gateway, PORT)) as came:
        assert client.open("own", gateway, PORT).error == ""
        eventually("it came", lambda: came() == 1)
        client.do("close", name="own")
    assert mesh.record("source", source_pod="client")["path"] == "plaintext"
