"""Two pods of one node talk directly: each connection has its one record, and nothing gets by a policy."""

from __future__ import annotations

import pytest

from tests.mesh.cluster import Mesh, Record
from tests.mesh.manifests import mtls, shop, spiffe
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.kernel

MANIFESTS = [*shop(), mtls("STRICT")]


def warm(mesh: Mesh, who: str = "shop/near", to: str = "web", port: int = 80) -> None:
    """The first one is the engine's: by it the agent decides what the kernel may do with those that follow."""
    assert mesh.puppet(who).ask(to, port, family=4).error == ""
    mesh.quiet()
    mesh.mark()


def direct(mesh: Mesh, **wanted: object) -> Record:
    return mesh.record("destination", path="direct", **wanted)


def test_the_first_one_is_the_engines_and_those_that_follow_have_one_record_each(mesh: Mesh) -> None:
    near = mesh.puppet("shop/near")
    warm(mesh)
    for _ in range(5):
        assert near.ask("web", text="who", family=4).who["pod"] == "web"
    rows = eventually("their records", lambda: len(mesh.records()) >= 5 and mesh.records())
    assert [(row["reporter"], row["path"], row["verdict"], row["end"]) for row in rows] == [
        ("destination", "direct", "allow", "closed")
    ] * 5
    for row in rows:
        assert (row["source_pod"], row["destination_pod"]) == ("near", "web")
        assert (row["source_principal"], row["destination_principal"]) == (spiffe("near"), spiffe("web"))
        assert row["destination_address"] == f"{mesh.vip('shop/web')}:80"
        assert row["dialled_address"] == f"{mesh.ip('shop/web')}:8080"
        assert row["destination_service"] == "web.shop.svc.cluster.local"
        assert row["rule"] == "no policy"
        assert row["bytes_sent"] == len("who\n")
        assert row["bytes_received"] > 0
        assert row["connection_security_policy"] == "unknown", "it is not encrypted, and nobody says it is"
