"""The agent may be killed, stopped or replaced at any time; an engine that dies is back in a second."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests import slowness
from tests.mesh.cluster import NODES, Mesh
from tests.mesh.manifests import Manifest, mtls, shop
from tests.mesh.successors import another_agent
from tests.mesh.wire import Wire

pytestmark = pytest.mark.kernel

MANIFESTS: list[Manifest] = [*shop(), mtls("STRICT")]
SIZE = 96 << 20
WARM = 30  # connections after which each worker of both engines has asked everything once
BACK_WITHIN_S = slowness.seconds(1.0)


@pytest.fixture(autouse=True)
def both_ready(mesh: Mesh) -> Iterator[None]:
    yield
    mesh.settle()


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("dying", [("node1",), ("node2",), NODES], ids=["client's node", "server's node", "both"])
def test_a_killed_agent_costs_no_byte_and_no_record(mesh: Mesh, dying: tuple[str, ...]) -> None:
    client = mesh.puppet("shop/client")
    for name in ("download", "chat"):
        client.open(name, "web", family=4)
    ports = {client.do("names", name=name).local: name for name in ("download", "chat")}
    client.do("download", name="download", size=SIZE, pause_at=SIZE // 3)
    client.do("chat", name="chat")
    client.do("newcomers", name="newcomers", to="web", port=80)
    client.do("progress", name="download")
    client.do("fresh", name="newcomers", times=WARM)
    mesh.pause()  # so that there is no next agent yet
    try:
        dead = {node: mesh.kill_agent(node) for node in dying}
        client.do("fresh", name="chat")
        client.do("fresh", name="newcomers", times=6)  # the answers are remembered: nobody need be asked
    finally:
        mesh.go_on()
    client.do("resume", name="download")
    for node, pid in dead.items():
        mesh.await_agent(node, pid)
    assert len(mesh.agent("node1", "connections")) >= 2, "the next agent knows what the engine carries"
    got = client.do("finish", name="download", stop=False)
    assert (got.error, got.received, got.wrong_at) == ("", SIZE, None)
    chat, newcomers = client.do("finish", name="chat"), client.do("finish", name="newcomers")
    assert (chat.error, newcomers.error, newcomers.failed) == ("", "", [])
    for name in ("download", "chat"):
        client.do("close", name=name)
    for address, name in ports.items():
        source = mesh.record("source", source_address=address)
        destination = mesh.record("destination", trace_id=source["trace_id"])
        for row in (source, destination):
            assert row["end"] == "closed", row
            assert name == "chat" or row["bytes_received"] == SIZE
        assert source["bytes_sent"] == destination["bytes_sent"]
    mesh.await_records(newcomers.worked + 2)
    for side in ("source", "destination"):
        for key in ("trace_id", "connection"):
            values = [row[key] for row in mesh.records(side)]
            assert len(set(values)) == len(values), f"one record each, told apart by {key}"


def test_what_is_not_remembered_waits_for_the_next_agent(mesh: Mesh, wire: Wire) -> None:
    client = mesh.puppet("shop/client")
    with mesh.without_agent("node1"):
        client.do("newcomers", name="unknown", to=mesh.ip("shop/web", 6), port=8082)
    client.do("progress", name="unknown")
    result = client.do("finish", name="unknown")
    assert (result.error, result.failed) == ("", []), result
    assert result.worked >= 1
    assert wire.tunnels()


def test_a_stopped_agent_holds_up_nothing_that_was_known(mesh: Mesh, wire: Wire) -> None:
    client = mesh.puppet("shop/client")
    client.open("talk", "web")
    assert client.ask("web").error == ""
    pids = [mesh.agent_pid(node) for node in NODES]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        word = wire.secret()
        assert client.say("talk", f"echo {word}").reply == word
        assert client.ask("web", timeout=5).error == ""
        client.do("newcomers", name="unknown", to=mesh.ip("shop/web"), port=8081)
        assert client.do("progress", name="unknown", timeout=0.5).error == "timeout", "who answered?"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    result = client.do("finish", name="unknown")
    assert (result.failed, result.worked > 0) == ([], True)
    client.do("close", name="talk")
    assert [mesh.agent_pid(node) for node in NODES] == pids, "nobody was replaced"


def test_a_second_agent_takes_over_and_the_first_leaves_in_good_order(mesh: Mesh, wire: Wire) -> None:
    client = mesh.puppet("shop/client")
    client.open("talk", "web", family=4)
    talk = client.do("names", name="talk").local
    client.do("chat", name="talk")
    first, engine = mesh.agent_pid("node1"), mesh.engine_pid("node1")
    with another_agent(mesh, "node1") as second:
        assert mesh.agent_pid("node1") == second["node1"]
        assert mesh.engine_pid("node1") == engine, "the engine stays"
        assert client.ask("web").error == ""
    assert mesh.agent_pid("node1") not in (first, *second.values()), (
        "and so does the second, when the lab starts a third"
    )
    assert "agent node1: exit code 0" in mesh.layout.daemon_log.read_text()
    chat = client.do("finish", name="talk")
    client.do("close", name="talk")
    assert chat.error == ""
    row = mesh.record("source", source_address=talk)
    mesh.record("destination", trace_id=row["trace_id"])
    assert wire.tunnels()


@pytest.mark.parametrize("node", NODES)
def test_a_killed_engine_is_back_within_a_second_and_nothing_leaks(mesh: Mesh, node: str) -> None:
    client, stranger = mesh.puppet("shop/client"), mesh.puppet("outside/stranger")
    client.open("doomed", "web")
    with Wire(mesh, ["shop/client", "shop/web", "outside/stranger"]) as wire:
        word = wire.secret()
        assert client.say("doomed", f"echo {word}").reply == word
        dead = mesh.kill_engine(node)
        began = time.monotonic()
        assert client.do("ended", name="doomed", timeout=5).how in ("reset", "closed")
        assert stranger.ask(mesh.ip("shop/web"), 8080, f"echo {wire.secret()}", timeout=5).error
        word = wire.secret()
        assert client.ask("web", text=f"echo {word}").reply == word, "the door was never shut"
        took = time.monotonic() - began
        assert mesh.engine_pid(node) not in (0, dead)
        client.do("close", name="doomed")
    assert wire.readable(word) == []
    assert [row for row in wire.findings() if "shop" not in row and ":15008" not in row and "8080" not in row] == []
    assert took < BACK_WITHIN_S, f"{took:.3f} s"
    assert not [row for row in mesh.events("shop/web", "line") if row["peer"].startswith(mesh.ip("outside/stranger"))]


def test_both_killed_at_once_come_back(mesh: Mesh, wire: Wire) -> None:
    client = mesh.puppet("shop/client")
    agents = {node: mesh.agent_pid(node) for node in NODES}
    mesh.pause()
    try:
        for node in NODES:
            os.kill(mesh.engine_pid(node), signal.SIGKILL)
            os.kill(agents[node], signal.SIGKILL)
        answer = client.ask("web", text=f"echo {wire.secret()}", timeout=3)
        assert answer.error, "nobody is there to carry it"
    finally:
        mesh.go_on()
    for node in NODES:
        mesh.await_agent(node, agents[node])
    word = wire.secret()
    assert client.ask("web", text=f"echo {word}").reply == word
    assert [row["text"] for row in mesh.events("shop/web", "line")] == [f"echo {word}"]
