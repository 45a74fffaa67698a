"""A label makes running pods members of the mesh, another makes them leave it, and no application notices."""

from __future__ import annotations

import pytest

from tests.mesh.cluster import Mesh
from tests.mesh.manifests import meta, namespace, pod, server, service, shop, spiffe
from tests.mesh.wire import Wire

pytestmark = pytest.mark.kernel

MANIFESTS = shop(
    service("headless", selector="web", clusterIP="None"),
    server("speaker", "node2", "speak"),
    mode=False,
)
LABEL = "ambient.dev/mode=enabled"
UNLABEL = "ambient.dev/mode-"


@pytest.fixture(autouse=True)
def outside_again(mesh: Mesh):  # type: ignore[no-untyped-def]
    yield
    mesh.label("ns/shop", UNLABEL)


def test_the_same_request_works_before_and_after_and_only_before_can_it_be_read(mesh: Mesh) -> None:
    client = mesh.puppet("shop/client")
    with Wire(mesh, []) as before:
        word = before.secret()
        assert client.ask("web", text=f"echo {word}").reply == word
    assert before.readable(word), "the oracle is blind: it does not see plaintext"
    mesh.label("ns/shop", LABEL)
    with Wire(mesh, ["shop/client", "shop/web"]) as after:
        word = after.secret()
        assert client.ask("web", text=f"echo {word}").reply == word
    assert after.findings() == []
    assert after.tunnels()


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("way", ["VIP", "pod", "headless"])
def test_the_server_sees_the_real_client_by_every_way(mesh: Mesh, wire: Wire, way: str, version: int) -> None:
    mesh.label("ns/shop", LABEL)
    to, port = {
        "VIP": (mesh.vip("shop/web", version), 80),
        "pod": (mesh.ip("shop/web", version), 8080),
        "headless": ("headless", 8080),
    }[way]
    answer = mesh.puppet("shop/client").ask(to, port, family=version)
    assert answer.who["peer"].rpartition(":")[0].strip("[]") == mesh.ip("shop/client", version)
    assert answer.who["peer"] == answer.local, "the port is the real one too"
    assert answer.remote.rpartition(":")[0].strip("[]") == (to if way != "headless" else mesh.ip("shop/web", version))
    assert wire.secret()


def test_each_side_writes_one_record_that_names_both_identities(mesh: Mesh, wire: Wire) -> None:
    mesh.label("ns/shop", LABEL)
    word = wire.secret()
    answer = mesh.puppet("shop/client").ask("web", text=f"echo {word}", family=4)
    source = mesh.record("source", source_address=answer.local)
    destination = mesh.record("destination", trace_id=source["trace_id"])
    for row in (source, destination):
        assert row["source_principal"] == spiffe("client"), row
        assert row["destination_principal"] == spiffe("web"), row
        assert (row["verdict"], row["path"], row["connection_security_policy"]) == ("allow", "tunnel", "mutual_tls")
        assert (row["bytes_sent"], row["bytes_received"]) == (len(f"echo {word}\n"), len(f"{word}\n"))
        assert (row["source_pod"], row["destination_pod"], row["end"]) == ("client", "web", "closed")
        assert row["destination_service"] == "web.shop.svc.cluster.local"
    assert source["destination_address"] == f"{mesh.vip('shop/web')}:80"
    assert destination["source_address"].rpartition(":")[0] == mesh.ip("shop/client")
    assert destination["destination_address"] == f"{mesh.ip('shop/web')}:8080"
    assert len(mesh.records()) == 2


def test_open_connections_survive_both_ways(mesh: Mesh) -> None:
    client = mesh.puppet("shop/client")
    client.open("old", "web")
    assert client.say("old", "echo before").reply == "before"
    mesh.label("ns/shop", LABEL)
    assert client.say("old", "echo enrolled").reply == "enrolled"
    client.open("new", "web")
    assert client.say("new", "echo tunnelled").reply == "tunnelled"
    mesh.label("ns/shop", UNLABEL)
    assert client.say("old", "echo left").reply == "left"
    assert client.say("new", "echo left").reply == "left"
    for name in ("old", "new"):
        client.do("close", name=name)
    source = mesh.record("source", path="tunnel")
    mesh.record("destination", path="tunnel", trace_id=source["trace_id"], bytes_sent=source["bytes_sent"])


def test_pods_of_one_node_meet_with_identities_too(mesh: Mesh) -> None:
    mesh.label("ns/shop", LABEL)
    answer = mesh.puppet("shop/near").ask("web", family=4)
    assert answer.who["peer"] == answer.local
    source = mesh.record("source", source_address=answer.local)
    assert source["source_principal"] == spiffe("near")
    assert mesh.record("destination", trace_id=source["trace_id"])["source_principal"] == spiffe("near")


def test_a_pods_own_label_outweighs_its_namespaces(mesh: Mesh) -> None:
    mesh.label("ns/shop", LABEL)
    mesh.label("pod/shop/web", "ambient.dev/mode=disabled")
    with Wire(mesh, []) as wire:
        word = wire.secret()
        assert mesh.puppet("shop/client").ask("web", text=f"echo {word}").reply == word
    assert wire.readable(word)
    assert mesh.record("source")["path"] == "plaintext"
    assert not mesh.records("destination")
    mesh.label("pod/shop/web", UNLABEL)
    assert mesh.puppet("shop/client").ask("web", text="echo again").reply == "again"
    mesh.record("destination", source_principal=spiffe("client"))


@pytest.mark.usefixtures("wire")
def test_a_server_that_speaks_first_is_heard(mesh: Mesh) -> None:
    mesh.label("ns/shop", LABEL)
    client = mesh.puppet("shop/client")
    client.open("speaker", mesh.ip("shop/speaker"), 8080)
    assert client.do("ended", name="speaker", timeout=5).how == "data"
    client.do("close", name="speaker")


def test_a_member_talks_to_what_is_outside_and_the_outside_to_it(mesh: Mesh) -> None:
    mesh.label("ns/shop", LABEL)
    answer = mesh.puppet("outside/stranger").ask("web.shop")
    assert answer.who["peer"] == answer.local
    row = mesh.record("destination")
    assert (row["path"], row["source_principal"], row["verdict"]) == ("plaintext", "", "allow")


@pytest.mark.parametrize(
    ("key", "value", "pod_name"),
    [
        ("exclude-outbound-ports", "8081", "client"),
        ("exclude-outbound-cidrs", "10.244.2.0/24", "client"),
        ("exclude-inbound-ports", "8081", "web"),
    ],
    ids=["outbound port", "outbound CIDR", "inbound port"],
)
def test_what_an_owner_excludes_stays_outside(mesh: Mesh, key: str, value: str, pod_name: str) -> None:
    mesh.label("ns/shop", LABEL)
    own = next(row for row in MANIFESTS if row["kind"] == "Pod" and row["metadata"]["name"] == pod_name)
    plain = {**own, "metadata": {**own["metadata"], "annotations": {}}}
    mesh.apply({**own, "metadata": {**own["metadata"], "annotations": {f"ambient.dev/{key}": value}}})
    try:
        client, to = mesh.puppet("shop/client"), mesh.ip("shop/web")
        if pod_name == "web":
            client = mesh.puppet("outside/stranger")  # who is excluded inbound is still dialled through tunnels
        assert client.ask(to, 8081).who["peer"].startswith(mesh.ip(client.pod))
        assert client.ask(mesh.ip("shop/web", 6), 8080).who["pod"] == "web"
        mesh.record("destination", destination_address=lambda text: text.endswith(":8080"))
        excluded = [row for row in mesh.records() if row["destination_address"].endswith(":8081")]
        assert [row["path"] for row in excluded] == ([] if pod_name == "web" else ["plaintext"]), excluded
        assert not [row for row in excluded if row["reporter"] == "source"]
    finally:
        mesh.apply(plain)


def test_a_pod_that_comes_later_is_a_member_from_its_first_connection(mesh: Mesh) -> None:
    mesh.label("ns/shop", LABEL)
    late = [pod("late", "node1"), server("fresh", "node2")]
    mesh.apply(late)
    mesh.learn()
    try:
        answer = mesh.puppet("shop/late").ask(mesh.ip("shop/fresh"), 8080)
        assert answer.who["peer"] == answer.local
        assert mesh.record("destination", source_principal=spiffe("late"))["destination_principal"] == spiffe("fresh")
    finally:
        mesh.dismiss("shop/late")
        mesh.delete(late)
        mesh.learn()


def test_enrolling_touches_no_packet_filter(mesh: Mesh) -> None:
    before = mesh.rulesets()
    mesh.label("ns/shop", LABEL)
    mesh.puppet("shop/client").ask("web")
    assert mesh.rulesets() == before


def test_a_namespace_alone_is_no_member(mesh: Mesh) -> None:
    mesh.apply([namespace("empty"), {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("x", "empty")}])
    mesh.label("ns/empty", LABEL)
    assert mesh.agent("node1")["ready"]
    mesh.delete(namespace("empty"))
