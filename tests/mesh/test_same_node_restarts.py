"""What goes directly notices no agent's death; what must not go on is ended by the next; no record is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.mesh import kernel
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import mtls, pod, policy, principal, shop
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.kernel

MANIFESTS = [*shop(), mtls("STRICT"), pod("other", "node2")]
DENY_NEAR = policy("no-more", "DENY", app="web", rules=[{"from": [{"source": {"principals": [principal("near")]}}]}])
NEW = 5  # connections while there is no agent


@pytest.fixture(autouse=True)
def ready(mesh: Mesh) -> Iterator[None]:
    """Both clients go directly."""
    for who in ("near", "other"):
        assert mesh.puppet(f"shop/{who}").ask("web", family=4).error == ""
    mesh.quiet()
    mesh.mark()
    yield
    mesh.settle()


def test_a_killed_agent_costs_direct_connections_nothing_and_its_successor_writes_their_records(mesh: Mesh) -> None:
    near = mesh.puppet("shop/near")
    near.open("kept", "web", family=4)
    assert near.say("kept", "echo before").reply == "before"
    with mesh.without_agent("node2"):
        assert near.say("kept", "echo meanwhile").reply == "meanwhile"
        for _ in range(NEW):
            assert near.ask("web", family=4, timeout=1).who["pod"] == "web"
    eventually("their records", lambda: len(mesh.records("destination")) >= NEW)
    assert near.say("kept", "echo after").reply == "after"
    (row,) = mesh.agent("node2", "connections")
    assert (row["path"], row["source"], row["destination"]) == ("direct", "shop/near", "shop/web")
    near.do("close", name="kept")
    found = eventually("the last record", lambda: len(mesh.records()) > NEW and mesh.records())
    assert [(row["path"], row["source_pod"], row["destination_pod"], row["verdict"]) for row in found] == [
        ("direct", "near", "web", "allow")
    ] * (NEW + 1)
    assert found[-1]["bytes_sent"] == sum(len(f"echo {word}\n") for word in ("before", "meanwhile", "after"))


def test_the_next_agent_ends_what_is_denied_by_now_and_nothing_else(mesh: Mesh) -> None:
    near, other = mesh.puppet("shop/near"), mesh.puppet("shop/other")
    for each in (near, other):
        each.open("talk", "web", family=4)
        assert each.say("talk", "echo before").reply == "before"
    try:
        mesh.pause()
        try:
            mesh.kill_agent("node2")
            written = mesh.layout.cluster / "denied-meanwhile.yaml"
            written.with_suffix(".new").write_text(yaml.safe_dump(DENY_NEAR))
            written.with_suffix(".new").rename(written)
        finally:
            mesh.go_on()
        assert near.do("ended", name="talk", timeout=15).how in ("reset", "closed", "ECONNABORTED")
        row = mesh.record("destination", source_pod="near")
        assert (row["end"], row["verdict"], row["reason"]) == ("cut", "deny", "denied_by_policy")
        assert other.say("talk", "echo after").reply == "after"
    finally:
        for each in (near, other):
            each.do("close", name="talk")
        written.unlink()
        mesh.settle()
        eventually("it is taken back", lambda: not near.ask("web", family=4).error)


def test_an_agent_that_is_away_for_too_long_leaves_new_connections_to_the_engine(mesh: Mesh) -> None:
    """Which repeats what it was told, or waits for the next agent."""
    near, expired = mesh.puppet("shop/near"), 'ambient_bpf_verdicts_total{verdict="connect_expired"}'
    near.open("kept", "web", family=4)
    before = mesh.metrics("node2")[expired]
    with mesh.without_agent("node2"):
        kernel.end_lease(mesh, "node2")
        for _ in range(NEW):
            near.ask("web", family=4, timeout=1)
        assert near.say("kept", "echo meanwhile").reply == "meanwhile"
    assert mesh.metrics("node2")[expired] == before + NEW
    near.do("close", name="kept")
    mesh.quiet()
    direct = [row for row in mesh.records() if row["path"] == "direct"]
    assert [row["bytes_sent"] for row in direct] == [len("echo meanwhile\n")]
    assert near.ask("web", family=4).error == ""
    mesh.quiet()
    mesh.mark()
    assert near.ask("web", family=4).error == ""
    assert mesh.record("destination", source_pod="near")["path"] == "direct", "by the next agent's verdict"


def test_after_a_restart_connections_are_direct_again(mesh: Mesh) -> None:
    dead = mesh.kill_agent("node2")
    mesh.await_agent("node2", dead)
    near = mesh.puppet("shop/near")
    assert near.ask("web", family=4).error == ""
    mesh.quiet()
    mesh.mark()
    assert near.ask("web", family=4).error == ""
    assert mesh.record("destination", source_pod="near")["path"] == "direct"


def test_new_connections_go_on_while_agents_come_and_go_and_each_has_one_record(mesh: Mesh) -> None:
    """A killed agent may have read what it had not written yet: of 64 at most."""
    near, to = mesh.puppet("shop/near"), mesh.ip("shop/web")
    assert near.ask(to, 8080).error == ""
    mesh.quiet()
    mesh.mark()
    near.do("newcomers", name="newcomers", to=to, port=8080, pause=0.002)
    for _ in range(2):
        near.do("fresh", name="newcomers", times=50)
        dead = mesh.kill_agent("node2")
        mesh.await_agent("node2", dead)
    near.do("fresh", name="newcomers", times=50)
    done = near.do("finish", name="newcomers")
    assert (done.error, done.failed) == ("", [])
    records = lambda: mesh.records("destination")  # noqa: E731 - asked again
    eventually("their records", lambda: len(records()) >= done.worked - 2 * 64)
    mesh.quiet()
    found = records()
    assert done.worked - 2 * 64 <= len(found) <= done.worked
    assert len({row["connection"] for row in found}) == len(found), "each once"
    assert {row["path"] for row in found} <= {"direct", "tunnel"}
    tunnels = sum(row["path"] == "tunnel" for row in found)
    assert tunnels <= len(found) / 2, "the engine's from each new agent's configuration until it has decided"
