"""Agents and engines of two versions, up and down again under load: nothing is lost, recorded twice, or let in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ambient.dataplane import abi
from tests.mesh.cluster import NODES, Mesh
from tests.mesh.manifests import PORTS, Manifest, mtls, pod, policy, server, shop
from tests.mesh.successors import NEXT_AGENT, another_agent, engine_of_the_next_version
from tests.mesh.waiting import eventually
from tests.mesh.wire import Wire

pytestmark = pytest.mark.kernel

MANIFESTS: list[Manifest] = [*shop(pod("crowd", "node1")), server("sink", "node2", "quiet"), mtls("STRICT")]
INSIDE = ["shop/crowd", "shop/sink", "shop/client", "shop/web"]
MEMBERS, RATE = 60, 40


@pytest.fixture(scope="module")
def next_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return engine_of_the_next_version(tmp_path_factory.mktemp("next"))


def versions(mesh: Mesh, node: str) -> list[tuple[int, str]]:
    """Of its engines, the oldest first."""
    rows = sorted(mesh.agent(node, "engines"), key=lambda row: str(row["started"]))
    return [(row["version"], row["state"]) for row in rows]


def some_newcomers(mesh: Mesh) -> None:
    crowd = mesh.puppet("shop/crowd")
    before = crowd.do("rush_so_far").came
    eventually("newcomers", lambda: crowd.do("rush_so_far").came >= before + RATE, within=20)
    during = crowd.do("rush_so_far")
    assert (during.lost, during.failed) == ({}, {}), during


def test_to_the_next_version_and_back_nothing_is_lost_and_a_policy_cuts_in_all(
    mesh: Mesh, wire: Wire, next_engine: Path
) -> None:
    client, crowd = mesh.puppet("shop/client"), mesh.puppet("shop/crowd")
    ours, next_ = abi.ABI, abi.ABI + 1
    client.open("ours", "web", family=4)
    to = mesh.ip("shop/sink")
    assert crowd.do("rush", to=to, ports=list(PORTS), members=MEMBERS, rate=RATE).lost == {}
    with another_agent(mesh, *NODES, binary=next_engine, program=NEXT_AGENT):
        for node in NODES:
            eventually(
                "the next engine serves beside ours",
                lambda node=node: versions(mesh, node) == [(ours, "draining"), (next_, "serving")],  # type: ignore[misc]
            )
        client.open("next", "web", family=4)
        some_newcomers(mesh)
    for node in NODES:
        eventually(
            "an engine of ours serves again beside both",
            lambda node=node: (
                versions(mesh, node)  # type: ignore[misc]
                == [(ours, "draining"), (next_, "draining"), (ours, "serving")]
            ),
        )
    client.open("again", "web", family=4)
    some_newcomers(mesh)
    for name in ("ours", "next", "again"):
        word = wire.secret()
        assert client.say(name, f"echo {word}").reply == word
    with mesh.having(policy("no-client", "DENY", app="web", rules=[{}])):
        for name in ("ours", "next", "again"):
            assert client.do("ended", name=name, timeout=5).how in ("reset", "closed")
            client.do("close", name=name)
    cut = [row for row in mesh.records("destination") if row["end"] == "cut"]
    assert [row["verdict"] for row in cut] == ["deny"] * 3
    assert len({row["connection"].partition("-")[0] for row in cut}) == 3, "of all three engines"
    after = crowd.do("rush_ends")
    assert (after.lost, after.failed) == ({}, {}), after
    eventually("the old ones left", lambda: all(len(mesh.engines(node)) == 1 for node in NODES), within=20)
    mesh.await_records(MEMBERS + after.came + 3)


def test_only_the_agent_goes_to_the_next_version_and_back(mesh: Mesh, wire: Wire) -> None:
    """An agent that says more than the engine knows, and finds what it carries; a policy changes meanwhile."""
    client = mesh.puppet("shop/client")
    client.open("talk", "web", family=4)
    engines = {node: mesh.engine_pid(node) for node in NODES}
    with another_agent(mesh, *NODES, program=NEXT_AGENT):
        assert len(mesh.agent("node1", "connections")) >= 1, "it knows what the engine carries"
        word = wire.secret()
        assert client.ask("web", text=f"echo {word}").reply == word
        assert client.say("talk", f"echo {word}").reply == word
        denial = mesh.layout.cluster / "denial.yaml"  # by hand: the lab's daemon is stopped
        denial.write_text(json.dumps(policy("no-client", "DENY", app="web", rules=[{}])))
        try:
            assert client.do("ended", name="talk", timeout=5).how in ("reset", "closed")
            assert client.ask("web").was_refused
        finally:
            denial.unlink()
    client.do("close", name="talk")
    assert {node: mesh.engine_pid(node) for node in NODES} == engines
    assert client.ask("web").error == ""
    mesh.await_records(4)
