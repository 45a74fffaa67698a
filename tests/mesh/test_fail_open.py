"""The fail-open audit: each thing the mesh stands on is taken away in turn, and nothing gets through that must not.

Four promises are held against each: a stranger's plaintext does not reach the app of a STRICT namespace, nor does a pod
of the same node that a policy denies, a pod of a namespace that requires mutual TLS says nothing in the clear, and its
application cannot take a connection out of the mesh. What was taken is back afterwards without anybody's help.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mesh import kernel
from tests.mesh.cluster import NODES, Mesh
from tests.mesh.manifests import enrolled, mtls, pod, policy, principal, server, service, shop
from tests.mesh.waiting import eventually
from tests.mesh.wire import Wire

pytestmark = pytest.mark.kernel

MANIFESTS = shop(
    mtls("STRICT"),
    enrolled("locked", require_mtls="true"),
    pod("careful", "node1", ns="locked"),
    server("plain", "node2", ns="outside"),
    service("plain", ns="outside"),
    pod("shut", "node2"),
    policy("shut", "DENY", app="web", rules=[{"from": [{"source": {"principals": [principal("shut")]}}]}]),
)
SERVER, CLIENT, SHUT, NEAR = "shop/web", "locked/careful", "shop/shut", "shop/near"
UNNOTICED = {"the engines", "every verdict", "every announcement"}  # what is made anew by itself is no tampering
SO_MARK = 36
MENDED_WITHIN_S = 12.0  # the agent looks every 5 s; a dead one is back in 2 s
Removal = Callable[[Mesh], None]


def kill_engines(mesh: Mesh) -> None:
    for node in NODES:
        (pid,) = mesh.engines(node)
        os.kill(pid, signal.SIGKILL)


REMOVALS: dict[str, Removal] = {
    "the server's entry in pods": lambda mesh: kernel.delete_pod(mesh, SERVER),
    "the server's plaintext listener": lambda mesh: kernel.delete_listener(mesh, SERVER, kernel.Role.INBOUND_PLAIN),
    "the server's tunnel listener": lambda mesh: kernel.delete_listener(mesh, SERVER, kernel.Role.INBOUND_TUNNEL),
    "the client's outbound listener": lambda mesh: kernel.delete_listener(mesh, CLIENT, kernel.Role.OUTBOUND),
    "every pinned map": lambda mesh: kernel.unpin(mesh, "maps"),
    "every pinned hook": lambda mesh: kernel.unpin(mesh, "links"),
    "every pinned lookup": lambda mesh: kernel.unpin(mesh, "lookup"),
    "the setsockopt hook": lambda mesh: kernel.detach(mesh, "node1", "links/setsockopt"),
    "the setsockopt hook's spare": lambda mesh: kernel.detach(mesh, "node1", "links_spare/setsockopt"),
    "the sock_ops hook": lambda mesh: kernel.detach(mesh, "node2", "links/sock_ops"),
    "the sock_ops hook's spare": lambda mesh: kernel.detach(mesh, "node2", "links_spare/sock_ops"),
    "the exemption of the engines": lambda mesh: kernel.delete_exemptions(mesh),
    "every verdict": lambda mesh: kernel.empty(mesh, "node2", "verdicts"),
    "every announcement": lambda mesh: kernel.empty(mesh, "node2", "flows"),
    "the routes of the client": lambda mesh: kernel.delete_routes(mesh, CLIENT),
    "the engines": kill_engines,
}
# Who is root on the node can switch the mesh off; with an agent alive that lasts for seconds. See docs/security.md.
SWITCHES: dict[str, Removal] = {
    "the server's socket lookup": lambda mesh: kernel.detach(mesh, "node2", f"lookup/{kernel.cookie(mesh, SERVER)}"),
    "the connect hook": lambda mesh: kernel.detach(mesh, "node1", "links/connect4"),
    "the client's entry in pods": lambda mesh: kernel.delete_pod(mesh, CLIENT),
}


@pytest.fixture(autouse=True)
def puppets(mesh: Mesh) -> Iterator[None]:
    """Made beforehand: the lab's daemon is stopped in some of these tests."""
    for who in ("outside/stranger", "shop/client", CLIENT, SHUT, NEAR):
        mesh.puppet(who)
    yield
    mesh.settle()
    eventually("members meet again", lambda: all_is_well(mesh), within=MENDED_WITHIN_S)
    eventually("all is mended", lambda: whole(mesh), within=MENDED_WITHIN_S)


def nothing_gets_through(mesh: Mesh) -> None:
    with Wire(mesh, [CLIENT, SERVER, "outside/plain"]) as wire:
        word = wire.secret()
        stranger = mesh.puppet("outside/stranger").ask(mesh.ip(SERVER), 8080, "echo I am nobody", timeout=2)
        careful = mesh.puppet(CLIENT).ask(mesh.ip("outside/plain"), 8080, f"echo {word}", timeout=2)
        shut = mesh.puppet(SHUT).ask(mesh.ip(SERVER), 8080, "echo I am shut", timeout=2)
        word = wire.secret()
        mesh.puppet(CLIENT).ask(mesh.ip(SERVER), 8080, f"echo {word}", timeout=2)  # through a tunnel, or not at all
        stays_captured(mesh, wire.secret())
    assert wire.findings() == []
    assert stranger.error, "the stranger was served"
    assert careful.error, "plaintext left"
    assert shut.error, "the denied one was served"
    assert not [row for row in mesh.events(SERVER, "line") if "nobody" in row["text"] or "shut" in row["text"]]
    assert not mesh.events("outside/plain", "line")


def stays_captured(mesh: Mesh, word: str) -> None:
    """An application takes its socket's mark away after it connected, if it can connect at all, and goes on talking."""
    client = mesh.puppet(CLIENT)
    if client.open("moved", mesh.ip(SERVER), 8080, timeout=2).error:
        return
    kept = client.do("option", name="moved", level=socket.SOL_SOCKET, option=SO_MARK, value=0).error == "EPERM"
    heard = not client.say("moved", f"echo {word}", timeout=2).error
    assert kept or not heard, "only of a connection that is over already may the mark be taken"
    client.do("close", name="moved")


def whole(mesh: Mesh) -> bool:
    """Every pin is there, and what a careful pod is forbidden is refused again."""
    pinned = all(
        any((kernel.pins(mesh, node) / kind).iterdir()) for node in NODES for kind in ("maps", "links", "lookup")
    )
    return pinned and bool(mesh.puppet(CLIENT).ask(mesh.ip("outside/plain"), 8080, timeout=2).error)


def noticed(mesh: Mesh) -> bool:
    return any("tampered" in mesh.new_log(node) for node in NODES)


def all_is_well(mesh: Mesh) -> bool:
    clients = ("shop/client", NEAR)  # from another node, and from the server's own, directly after the first time
    return not any(mesh.puppet(who).ask(mesh.vip("shop/web"), timeout=3).error for who in clients)


@pytest.mark.parametrize("name", list(REMOVALS))
def test_without_it_nothing_gets_through_and_a_living_agent_mends_it(mesh: Mesh, name: str) -> None:
    REMOVALS[name](mesh)
    nothing_gets_through(mesh)
    if name not in UNNOTICED:
        eventually("the agent noticed", lambda: noticed(mesh), within=MENDED_WITHIN_S)
    eventually("members meet again", lambda: all_is_well(mesh), within=MENDED_WITHIN_S)
    nothing_gets_through(mesh)


@pytest.mark.parametrize("name", list(REMOVALS))
def test_without_it_and_without_an_agent_nothing_gets_through(mesh: Mesh, name: str) -> None:
    with mesh.without_agent(*NODES):
        REMOVALS[name](mesh)
        nothing_gets_through(mesh)
    eventually("members meet again", lambda: all_is_well(mesh), within=MENDED_WITHIN_S)
    nothing_gets_through(mesh)


@pytest.mark.parametrize("name", SWITCHES)
def test_what_root_switched_off_a_living_agent_switches_on_again(mesh: Mesh, name: str) -> None:
    SWITCHES[name](mesh)
    eventually("the agent noticed", lambda: noticed(mesh), within=MENDED_WITHIN_S)
    mesh.mark()
    nothing_gets_through(mesh)
    assert all_is_well(mesh)


def test_without_a_certificate_a_new_pod_is_captured_and_refused(mesh: Mesh) -> None:
    """The CA is gone before the pod comes: captured all the same, and nothing leaves."""
    ca = mesh.layout.ca / "ca.json"
    hidden = ca.rename(mesh.layout.state / "hidden.json")
    late = pod("late", "node1", ns="locked", account="never-seen")
    try:
        mesh.publish([late])
        eventually("captured", lambda: mesh.agent("node1")["pods"].get("locked/late", {}).get("captured"), within=10)
        assert "certificate spiffe://cluster.local/ns/locked/sa/never-seen" in mesh.agent("node1")["blockers"]
        with Wire(mesh, [CLIENT, SERVER, "outside/plain"]) as wire:
            answer = mesh.puppet("locked/late").ask(mesh.vip("shop/web"), text=f"echo {wire.secret()}", timeout=5)
        assert wire.findings() == []
        assert answer.was_refused, answer
        assert mesh.record("source", source_pod="late")["end"] == "no_context"
        assert all_is_well(mesh), "who has a certificate goes on"
    finally:
        Path(hidden).rename(ca)
    eventually("a certificate at last", lambda: mesh.ready("node1"), within=30)
    assert not mesh.puppet("locked/late").ask(mesh.vip("shop/web")).error
    mesh.dismiss("locked/late")
    mesh.delete(late)
