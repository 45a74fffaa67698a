"""The wire oracle sees what it should, and what it sees of the mesh is TLS on port 15008 and nothing else."""

from __future__ import annotations

import pytest

from tests.mesh.cluster import Mesh
from tests.mesh.manifests import shop
from tests.mesh.wire import Wire, is_tls

pytestmark = pytest.mark.kernel

MANIFESTS = shop()
INSIDE = ["shop/client", "shop/near", "shop/web"]


def test_the_oracle_reads_what_a_stranger_says(mesh: Mesh) -> None:
    with Wire(mesh, ["outside/stranger", "shop/web"]) as wire:
        word = wire.secret()
        assert mesh.puppet("outside/stranger").ask("web.shop", text=f"echo {word}").reply == word
    findings = wire.findings()
    assert [each for each in findings if "is readable" in each]
    assert [each for each in findings if "in the clear" in each]


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_between_nodes_there_is_tls_and_nothing_else(mesh: Mesh, version: int) -> None:
    client = mesh.puppet("shop/client")
    with Wire(mesh, INSIDE) as wire:
        for _ in range(3):
            word = wire.secret()
            assert client.ask("web", text=f"echo {word}", family=version).reply == word
        client.open("bulk", "web", family=version)
        client.do("download", name="bulk", size=4 << 20)
        assert client.do("finish", name="bulk", stop=False).wrong_at is None
        client.do("close", name="bulk")
    assert wire.findings() == []
    pods = {mesh.ip("shop/client", version), mesh.ip("shop/web", version)}
    mine = [(way, said) for way, said in wire.streams().items() if {str(way.source), str(way.destination)} == pods]
    assert len(mine) >= 2
    for way, said in mine:
        assert 15008 in (way.source_port, way.destination_port), way
        assert is_tls(said), (way, said[:16])


def test_the_filling_of_a_download_is_not_readable_either(mesh: Mesh) -> None:
    client = mesh.puppet("shop/client")
    with Wire(mesh, INSIDE) as wire:
        client.open("bulk", "web")
        client.do("download", name="bulk", size=1 << 20)
        assert client.do("finish", name="bulk", stop=False).received == 1 << 20
        client.do("close", name="bulk")
    filling = bytes(range(64))
    assert not [way for way, said in wire.streams().items() if filling in said]
    with Wire(mesh, []) as plain:
        stranger = mesh.puppet("outside/stranger")
        stranger.open("bulk", "web.shop")
        stranger.do("download", name="bulk", size=1 << 20)
        stranger.do("finish", name="bulk", stop=False)
        stranger.do("close", name="bulk")
    assert [way for way, said in plain.streams().items() if filling in said], "the oracle would not have seen it"
