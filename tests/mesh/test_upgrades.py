"""An engine is replaced under load: the new one takes what comes, the old one carries what it has to its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh.cluster import NODES, Mesh
from tests.mesh.manifests import PORTS, Manifest, mtls, pod, policy, server, shop
from tests.mesh.puppets import Answer
from tests.mesh.successors import another_agent, engine_of_another_build, states, upgrade
from tests.mesh.waiting import eventually, gone
from tests.mesh.wire import Wire

pytestmark = pytest.mark.kernel

MANIFESTS: list[Manifest] = [*shop(pod("crowd", "node1")), server("sink", "node2", "quiet"), mtls("STRICT")]
INSIDE = ["shop/crowd", "shop/sink", "shop/client", "shop/web"]
MEMBERS, RATE = 100, 60


@pytest.fixture(autouse=True)
def alone(mesh: Mesh) -> Iterator[None]:
    """Each test begins and ends with one engine a node, and with agents that are ready."""
    yield
    mesh.puppet("shop/crowd").do("rush_ends")
    mesh.settle()
    eventually("one engine a node", lambda: all(len(mesh.engines(node)) == 1 for node in NODES), within=20)


def rush(mesh: Mesh, members: int = MEMBERS, rate: int = RATE) -> None:
    crowd, to = mesh.puppet("shop/crowd"), mesh.ip("shop/sink")
    assert crowd.do("rush", to=to, ports=list(PORTS), members=members, rate=rate).lost == {}


def so_far(mesh: Mesh, *, newcomers: int = 0) -> Answer:
    """What became of the load, when so many more came than now. Says what docs/reliability.md says."""
    crowd = mesh.puppet("shop/crowd")
    before = crowd.do("rush_so_far")
    eventually("newcomers", lambda: crowd.do("rush_so_far").came >= before.came + newcomers, within=20)
    after = crowd.do("rush_so_far", anew=True)
    assert after.said > before.said or not newcomers
    slow = f"longest stall {after.stall * 1000:.0f} ms, slowest newcomer {after.slowest * 1000:.0f} ms"
    print(f"\nof {after.said} messages, {after.came} newcomers: lost {after.lost}, failed {after.failed}; {slow}")
    return after


def test_two_upgrades_in_a_row_lose_no_message_and_no_connection(mesh: Mesh, wire: Wire) -> None:
    """On both nodes, so three engines are alive on each; every connection has its one record on each side."""
    client = mesh.puppet("shop/client")
    rush(mesh)
    before = so_far(mesh, newcomers=RATE)
    for turn in ("first", "second"):
        for node in NODES:
            upgrade(mesh, node)
            during = so_far(mesh, newcomers=RATE)
            assert (during.lost, during.failed) == ({}, {}), during
        client.open(turn, "web", family=4)
    assert [len(mesh.engines(node)) for node in NODES] == [3, 3]
    for turn in ("first", "second"):
        word = wire.secret()
        assert client.say(turn, f"echo {word}").reply == word
        client.do("close", name=turn)
    after = mesh.puppet("shop/crowd").do("rush_ends")
    assert (after.lost, after.failed) == ({}, {}), after
    assert after.came > before.came + 4 * RATE
    eventually("the old ones left", lambda: all(len(mesh.engines(node)) == 1 for node in NODES), within=20)
    mesh.await_records(MEMBERS + after.came + 2)
    assert {row["end"] for row in mesh.records()} == {"closed"}
    for side in ("source", "destination"):
        assert len({row["connection"] for row in mesh.records(side)}) == MEMBERS + after.came + 2


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("node", NODES)
def test_the_old_engine_takes_back_what_comes_when_the_new_one_is_killed(mesh: Mesh, node: str) -> None:
    rush(mesh, rate=0)
    old, new = upgrade(mesh, node)
    os.kill(new, signal.SIGKILL)
    gone(new)
    crowd = mesh.puppet("shop/crowd")
    assert crowd.ask(mesh.ip("shop/sink"), 8080, "echo at once", timeout=5).error == ""
    # It was told to end, so the agent brings the next, and what comes goes there.
    eventually("a third serves", lambda: mesh.engine_pid(node) not in (0, old, new), within=10)
    assert crowd.ask(mesh.ip("shop/sink"), 8080, "echo to the third", timeout=5).error == ""
    after = crowd.do("rush_ends")
    assert after.lost == {}


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("node", NODES)
def test_the_new_engine_goes_on_when_the_old_one_is_killed(mesh: Mesh, node: str) -> None:
    mesh.puppet("shop/client").open("doomed", "web")
    assert mesh.puppet("shop/client").say("doomed", "echo hello").reply == "hello"
    old, new = upgrade(mesh, node)
    rush(mesh)
    os.kill(old, signal.SIGKILL)
    gone(old)
    assert mesh.puppet("shop/client").do("ended", name="doomed", timeout=5).how in ("reset", "closed")
    mesh.puppet("shop/client").do("close", name="doomed")
    during = so_far(mesh, newcomers=RATE)
    assert (during.lost, during.failed) == ({}, {}), during
    assert mesh.engine_pid(node) == new
    assert mesh.puppet("shop/crowd").do("rush_ends").lost == {}


@pytest.mark.usefixtures("wire")
def test_an_agent_killed_in_the_middle_finds_both_and_a_policy_cuts_in_both(mesh: Mesh) -> None:
    client = mesh.puppet("shop/client")
    client.open("old", "web", family=4)
    rush(mesh)
    pairs = {node: upgrade(mesh, node) for node in NODES}
    client.open("new", "web", family=4)
    for name in ("old", "new"):
        assert client.say(name, "echo before").reply == "before"
    for node in NODES:
        dead = mesh.kill_agent(node)
        mesh.await_agent(node, dead)
        wanted = dict(zip(pairs[node], ("draining", "serving"), strict=True))
        eventually("it knows both", lambda node=node, wanted=wanted: states(mesh, node) == wanted)  # type: ignore[misc]
        assert len(mesh.agent(node, "connections")) >= MEMBERS
    during = so_far(mesh, newcomers=RATE)
    assert (during.lost, during.failed) == ({}, {}), during
    with mesh.having(policy("no-client", "DENY", app="web", rules=[{}])):
        for name in ("old", "new"):
            assert client.do("ended", name=name, timeout=5).how in ("reset", "closed")
            client.do("close", name=name)
    rows = [row for row in mesh.records("destination") if row["end"] == "cut"]
    assert [row["verdict"] for row in rows] == ["deny", "deny"]
    assert len({row["connection"].partition("-")[0] for row in rows}) == 2, "of either engine"
    after = mesh.puppet("shop/crowd").do("rush_ends")
    assert (after.lost, after.failed) == ({}, {}), after
    eventually("the old ones left", lambda: all(len(mesh.engines(node)) == 1 for node in NODES), within=20)
    mesh.await_records(MEMBERS + after.came + 2)


@pytest.mark.usefixtures("wire")
def test_an_engine_told_to_end_while_the_agent_is_dead_goes_on_until_the_next_agent(mesh: Mesh) -> None:
    rush(mesh)
    so_far(mesh, newcomers=RATE)
    mesh.puppet("shop/crowd").do("rush_ends")
    rush(mesh, rate=0)  # an engine without an agent dials as often as it has sockets of the pod
    crowd, old = mesh.puppet("shop/crowd"), mesh.engine_pid("node2")
    with mesh.without_agent("node2"):
        os.kill(old, signal.SIGTERM)
        for _ in range(10):
            assert crowd.ask(mesh.ip("shop/sink"), 8080, "echo goes on", timeout=5).error == ""
    eventually("another engine serves", lambda: mesh.engine_pid("node2") not in (0, old), within=10)
    assert crowd.ask(mesh.ip("shop/sink"), 8080, "echo to the new one", timeout=5).error == ""
    assert crowd.do("rush_ends").lost == {}


@pytest.mark.usefixtures("wire")
def test_an_agent_with_another_engine_upgrades_it_and_the_next_one_goes_back(mesh: Mesh, tmp_path: Path) -> None:
    rush(mesh)
    old = mesh.engine_pid("node2")
    with another_agent(mesh, "node2", binary=engine_of_another_build(tmp_path)):
        new = eventually("its engine", lambda: (pid := mesh.engine_pid("node2")) != old and pid, within=10)
        builds = {each["pid"]: each["build"].partition("+")[2] for each in mesh.agent("node2", "engines")}
        assert (builds[new], builds[old] == builds[new]) == ("anotherbuild", False)
        so_far(mesh, newcomers=RATE)
    eventually("the lab's engine", lambda: mesh.engine_pid("node2") not in (0, old, new), within=10)
    after = so_far(mesh, newcomers=RATE)
    assert (after.lost, after.failed) == ({}, {}), after


@pytest.mark.usefixtures("wire")
def test_an_engine_that_does_not_start_leaves_everything_to_the_old_one(mesh: Mesh, tmp_path: Path) -> None:
    broken = tmp_path / "engine"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && echo ambient-engine broken+1 || exit 1\n")
    broken.chmod(0o755)
    tmp_path.chmod(0o755)
    rush(mesh)
    old = mesh.engine_pid("node2")
    with another_agent(mesh, "node2", binary=broken):
        eventually("it was tried", lambda: "no other could be started" in mesh.new_log("node2"), within=10)
        during = so_far(mesh, newcomers=RATE)
        assert (during.lost, during.failed) == ({}, {}), during
        assert mesh.engines("node2") == [old]
        assert mesh.ready("node2")
