"""Two pods of one node talk directly: each connection has its one record, and nothing gets past a policy."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from ambient.cli import main
from tests import slowness
from tests.mesh.cluster import NODES, Mesh, Record
from tests.mesh.manifests import enrolled, mtls, pod, policy, principal, server, service, shop, spiffe
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.kernel

MANIFESTS = [
    *shop(),
    mtls("STRICT"),
    pod("other", "node2"),
    *(server(f"api{n}", node, labels={"app": "api"}) for n, node in enumerate(("node1", "node2", "node2"))),
    service("api"),
    enrolled("sealed", same_node="mtls"),
    server("vault", "node2", ns="sealed"),
    service("vault", "sealed"),
]
WITHIN_S = 1.0
DENY_NEAR = policy("no-more", "DENY", app="web", rules=[{"from": [{"source": {"principals": [principal("near")]}}]}])


def warm(mesh: Mesh, who: str = "shop/near", to: str = "web", port: int = 80, family: int = 4) -> None:
    """The first one is the engine's: by it the agent decides what the kernel may do with those that follow."""
    assert mesh.puppet(who).ask(to, port, family=family).error == ""
    eventually("it is over", lambda: not any(row["path"] == "tunnel" for node in NODES for row in open_on(mesh, node)))
    mesh.mark()


def open_on(mesh: Mesh, node: str) -> list[Record]:
    found: list[Record] = mesh.agent(node, "connections")
    return found


def paths(mesh: Mesh) -> list[tuple[str, str]]:
    return sorted((row["reporter"], row["path"]) for row in mesh.records())


def rows(mesh: Mesh, count: int) -> list[Record]:
    """That many records, and no more."""
    found = eventually("the records", lambda: len(mesh.records()) >= count and mesh.records())
    assert len(found) == count, found
    return found


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_after_the_first_one_each_connection_is_direct_and_has_one_record(mesh: Mesh, version: int) -> None:
    near = mesh.puppet("shop/near")
    warm(mesh, family=version)
    for _ in range(5):
        assert near.ask("web", text="who", family=version).who["pod"] == "web"
    for row in rows(mesh, 5):
        assert (row["reporter"], row["path"], row["verdict"], row["end"]) == (
            "destination", "direct", "allow", "closed",
        )  # fmt: skip
        assert (row["source_pod"], row["destination_pod"]) == ("near", "web")
        assert (row["source_principal"], row["destination_principal"]) == (spiffe("near"), spiffe("web"))
        assert row["destination_address"].rpartition(":")[0].strip("[]") == mesh.vip("shop/web", version)
        assert row["dialled_address"].rpartition(":")[0].strip("[]") == mesh.ip("shop/web", version)
        assert row["destination_service"] == "web.shop.svc.cluster.local"
        assert (row["rule"], row["bytes_sent"]) == ("no policy", len("who\n"))
        assert row["connection_security_policy"] == "unknown", "it is not encrypted, and nobody says it is"


def test_the_two_apps_see_each_other_and_the_address_that_was_dialled(mesh: Mesh) -> None:
    near = mesh.puppet("shop/near")
    warm(mesh)
    near.open("seen", "web", family=4)
    seen = near.do("names", name="seen")
    assert (seen.remote, seen.local.partition(":")[0]) == (f"{mesh.vip('shop/web')}:80", mesh.ip("shop/near"))
    assert json.loads(near.say("seen", "who").reply)["peer"] == seen.local
    near.do("close", name="seen")


def test_bytes_are_exact_both_ways(mesh: Mesh) -> None:
    near, size = mesh.puppet("shop/near"), 32 << 20
    warm(mesh)
    near.open("bulk", "web", family=4)
    near.do("download", name="bulk", size=size)
    assert near.do("finish", name="bulk", stop=False).wrong_at is None
    near.do("close", name="bulk")
    row = mesh.record("destination", path="direct", destination_pod="web")
    (asked,) = [event["text"] for event in mesh.events("shop/web", "line")]
    assert (row["bytes_sent"], row["bytes_received"]) == (len(asked) + 1, size)


def test_an_open_one_is_listed_and_proves_what_it_is(mesh: Mesh) -> None:
    near = mesh.puppet("shop/near")
    warm(mesh)
    near.open("kept", "web", family=4)
    near.say("kept", "echo hello")
    (row,) = mesh.agent("node2", "connections")
    assert (row["path"], row["source"], row["destination"]) == ("direct", "shop/near", "shop/web")
    assert (row["bytes_sent"], row["bytes_received"]) == (len("echo hello\n"), len("hello\n"))
    result = CliRunner().invoke(main, ["verify", "shop", "--lab", mesh.layout.lab, "-o", "json"])
    found = json.loads(result.stdout)
    assert (found["problems"], found["proven"], result.exit_code) == ([], True, 0)
    (open_now,) = [each["clear"] for each in found["pods"] if each["pod"] == "shop/web"]
    assert [(each["direction"], each["kind"]) for each in open_now] == [("in", "direct")]
    assert any("their bytes are not encrypted" in note for note in found["notes"])
    near.do("close", name="kept")


def test_explain_says_that_it_goes_directly(mesh: Mesh) -> None:
    said = CliRunner().invoke(
        main, ["explain", "--from", "shop/near", "--to", "web:80", "--lab", mesh.layout.lab, "--node", "node2"]
    )
    assert said.exit_code == 0, said.output
    assert "directly, on one node: the kernel knows both ends, nothing is encrypted" in said.stdout


def test_a_new_denial_cuts_the_open_connection_and_only_that(mesh: Mesh) -> None:
    near, other = mesh.puppet("shop/near"), mesh.puppet("shop/other")
    for who, each in (("near", near), ("other", other)):
        warm(mesh, f"shop/{who}")
        each.open("talk", "web", family=4)
        assert each.say("talk", "echo before").reply == "before"
    try:
        began = time.monotonic()
        mesh.publish([DENY_NEAR])
        assert near.do("ended", name="talk", timeout=5).how in ("reset", "closed", "ECONNABORTED")
        assert time.monotonic() - began < slowness.seconds(WITHIN_S)
        near.do("close", name="talk")
        row = mesh.record("destination", path="direct")
        assert (row["source_pod"], row["end"], row["verdict"]) == ("near", "cut", "deny")
        assert (row["reason"], row["response_flags"]) == ("denied_by_policy", "DENY")
        assert "AuthorizationPolicy shop/no-more rule 0" in row["rule"]
        assert row["bytes_sent"] == len("echo before\n")
        assert other.say("talk", "echo still").reply == "still"
        mesh.mark()
        assert near.ask("web", family=4).was_refused
        assert mesh.record("destination", source_pod="near")["path"] == "tunnel", "refused where it always was"
        warm(mesh, "shop/other")  # its rule is another now
        assert other.ask("web", family=4).error == ""
        row = mesh.record("destination", path="direct", source_pod="other")
        assert row["rule"] == "no ALLOW policy, no DENY rule matched"
    finally:
        other.do("close", name="talk")
        mesh.delete(DENY_NEAR)
    warm(mesh)
    assert near.ask("web", family=4).error == ""
    mesh.record("destination", path="direct", source_pod="near")


def test_a_service_is_shared_as_the_policy_says_between_here_and_elsewhere(mesh: Mesh) -> None:
    """Chi-squared over three equal endpoints, two of them on the client's node: 13.8 is one in a thousand."""
    near, count = mesh.puppet("shop/near"), 600
    warm(mesh, to="api")
    found = Counter(near.ask("api", family=4).who["pod"] for _ in range(count))
    assert set(found) == {"api0", "api1", "api2"}
    expected = count / len(found)
    assert sum((seen - expected) ** 2 / expected for seen in found.values()) < 13.8, found
    mesh.quiet()
    ways = Counter((row["reporter"], row["path"], row["destination_pod"]) for row in mesh.records("destination"))
    assert ways == {
        ("destination", "tunnel", "api0"): found["api0"],
        ("destination", "direct", "api1"): found["api1"],
        ("destination", "direct", "api2"): found["api2"],
    }


def test_an_endpoint_that_goes_is_chosen_no_more_and_one_that_comes_is(mesh: Mesh) -> None:
    near = mesh.puppet("shop/near")
    more = server("api3", "node2", labels={"app": "api"})
    warm(mesh, to="api")
    with mesh.having(more):
        warm(mesh, to="api")
        eventually("the new one answers", lambda: near.ask("api", family=4).who["pod"] == "api3")
    mesh.mark()
    warm(mesh, to="api")
    assert {near.ask("api", family=4).who["pod"] for _ in range(40)} == {"api0", "api1", "api2"}


def test_where_encryption_is_wanted_on_the_node_it_is_a_tunnel(mesh: Mesh) -> None:
    near = mesh.puppet("shop/near")
    for _ in range(3):
        assert near.ask("vault.sealed", family=4).error == ""
    rows(mesh, 6)
    assert paths(mesh) == [("destination", "tunnel")] * 3 + [("source", "tunnel")] * 3


@pytest.mark.parametrize(
    "label", ["ambient.dev/same-node=mtls", "istio.io/use-waypoint=gate"], ids=["a wish", "a waypoint"]
)
def test_a_label_that_forbids_it_cuts_what_is_open_and_what_follows_is_a_tunnel(mesh: Mesh, label: str) -> None:
    near = mesh.puppet("shop/near")
    warm(mesh)
    near.open("talk", "web", family=4)
    assert near.say("talk", "echo before").reply == "before"
    try:
        mesh.label("pod/shop/web", label)
        assert near.do("ended", name="talk", timeout=WITHIN_S).how in ("reset", "closed", "ECONNABORTED")
        near.do("close", name="talk")
        row = mesh.record("destination", path="direct", end="cut")
        assert row["reason"] == ("waypoint" if "waypoint" in label else "same_node_mtls")
        mesh.mark()
        for _ in range(2):
            assert near.ask("web", family=4).error == ""
        rows(mesh, 4)
        assert paths(mesh) == [("destination", "tunnel")] * 2 + [("source", "tunnel")] * 2
    finally:
        mesh.label("pod/shop/web", label.partition("=")[0] + "-")


@pytest.fixture
def rewritten(mesh: Mesh) -> Iterator[None]:
    """Something on the node gives connections between its pods another source: not tunnels, only the app's port."""
    inside = ["ip", "netns", "exec", mesh.facts["nodes"]["node2"]["netns"], "nft"]
    rule = f"ip daddr {mesh.ip('shop/web')} tcp dport 8080 masquerade"
    chain = "chain after { type nat hook postrouting priority 0; " + rule + "; }"
    subprocess.run([*inside, "-f", "-"], input=f"table ip meddler {{\n{chain}\n}}\n", text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "delete table ip meddler"], check=True)


def test_where_something_rewrites_addresses_nothing_is_said_and_the_pair_goes_through_the_engine(
    mesh: Mesh, request: pytest.FixtureRequest
) -> None:
    other = mesh.puppet("shop/other")
    warm(mesh, "shop/other")
    assert other.ask("web", family=4).error == ""
    request.getfixturevalue("rewritten")
    mesh.mark()
    assert other.ask("web", text="echo unheard", family=4, timeout=2).error
    row = mesh.record("destination", path="direct", source_pod="other", verdict="deny")
    assert (row["reason"], row["end"], row["bytes_sent"]) == ("unadmitted", "unadmitted", 0)
    assert "pod shop/other to pod shop/web" in mesh.new_log("node2")
    assert "unheard" not in {event["text"].partition(" ")[2] for event in mesh.events("shop/web", "line")}
    mesh.mark()
    for _ in range(2):
        assert other.ask("web", family=4).error == ""
    rows(mesh, 4)
    assert paths(mesh) == [("destination", "tunnel")] * 2 + [("source", "tunnel")] * 2


def test_where_the_network_lets_only_tunnels_through_the_engine_takes_over(mesh: Mesh) -> None:
    """A NetworkPolicy may know of port 15008 alone; the first that does not arrive is the last that tries."""
    near = mesh.puppet("shop/near")
    warm(mesh)
    nft = ["ip", "netns", "exec", mesh.node_netns("node2").name, "nft"]
    ends = f"ip saddr {mesh.ip('shop/near')} ip daddr {mesh.ip('shop/web')}"
    rules = "add table inet np; add chain inet np shut { type filter hook forward priority 0; }; "
    subprocess.run([*nft, f"{rules}add rule inet np shut {ends} tcp dport != 15008 tcp flags syn drop"], check=True)
    try:
        assert near.ask("web", family=4, timeout=1.5).error == "timeout"
        assert mesh.record("destination", path="direct")["end"] == "dial"
        assert near.ask("web", family=4).who["pod"] == "web"
    finally:
        subprocess.run([*nft, "delete table inet np"], check=True)
