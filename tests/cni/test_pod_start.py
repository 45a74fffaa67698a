"""Pods that start on a real node: captured before their first process, held while nobody can, left alone outside.

Namespace `shop` is in the mesh and registry-only: who is captured does not reach a server that the World does not know.
"""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ambient.lab import linux
from ambient.model.mesh import TUNNEL_PORT
from tests.capture import apps
from tests.cni.node import Node, Sandbox, eventually
from tests.cni.runtime import Attachment, PluginError
from tests.engine import h2peer
from tests.mesh import stolen

pytestmark = pytest.mark.kernel

OUT, REFUSED = "app", "ConnectionResetError"
TRY_AGAIN_LATER = 11
SHOP = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "shop", "labels": {"ambient.dev/mode": "enabled", "ambient.dev/outbound": "registry-only"}},
}
ANOTHER_NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node2"}}
ELSEWHERE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}}


@pytest.fixture
def bare() -> Iterator[Node]:
    """Without an agent."""
    with tempfile.TemporaryDirectory(prefix="amb") as folder:  # short: it has unix sockets
        node = Node(Path(folder))
        try:
            node.write(SHOP, ELSEWHERE)
            yield node
        finally:
            node.close()


@pytest.fixture
def node(bare: Node) -> Node:
    """With an agent that is ready."""
    bare.start()
    return bare


@pytest.fixture
def web(node: Node) -> Sandbox:
    """A pod of the mesh that the World knows, without an address: as kubelet has just begun with it."""
    node.write(node.pod("web"))
    return node.sandbox("web")


def took(work: Callable[[], object]) -> float:
    before = time.monotonic()
    work()
    return time.monotonic() - before


def test_a_pod_is_captured_before_its_first_process_and_before_the_world_has_its_address(
    node: Node, web: Sandbox
) -> None:
    result = json.loads(web.add())
    assert [ip["address"] for ip in result["ips"]] == ["10.78.1.2/24"]
    assert node.status()["pods"]["shop/web"]["captured"]
    assert web.dials_out() == REFUSED
    row = eventually("its record", node.records)[0]
    assert (row["source_workload"], row["reason"]) == ("web", "not_in_registry")
    node.write(node.pod("web", ip="10.78.1.2"))
    eventually("the World has it", lambda: node.address_of("shop/web") == "10.78.1.2")
    assert node.pinned() == [web.cookie], "and it stays what it is"
    assert web.dials_out() == "PermissionError", "by connect() itself, now that it was asked before"


def test_the_world_is_waited_for(node: Node) -> None:
    pod = node.sandbox("late")
    later = threading.Timer(0.7, node.write, [node.pod("late")])
    later.start()
    assert 0.5 < took(pod.add) < 4
    later.join()
    assert pod.dials_out() == REFUSED


def test_a_pod_that_the_world_never_has_is_held_by_name(node: Node) -> None:
    pod = node.sandbox("unheard")
    with pytest.raises(PluginError, match=r"waits for pod shop/unheard \(uid ") as caught:
        pod.add()
    assert caught.value.code == TRY_AGAIN_LATER
    assert node.pinned() == []
    pod.delete()  # as the runtime then does, before it tries again with another sandbox
    node.write(node.pod("unheard"))
    again = node.sandbox("unheard")
    again.add()
    assert again.dials_out() == REFUSED


def test_who_is_outside_is_left_alone(node: Node) -> None:
    node.write(node.pod("free", "elsewhere"))
    pod = node.sandbox("free", "elsewhere")
    assert took(pod.add) < 1
    assert (pod.dials_out(), node.pinned()) == (OUT, [])
    unseen = node.sandbox("unseen", "elsewhere")
    assert took(unseen.add) < 3, "the World has no such pod, but nothing of its namespace is in the mesh"


def test_without_an_agent_the_mesh_waits_and_the_rest_does_not(node: Node, web: Sandbox) -> None:
    node.kill()
    free = node.sandbox("free", "elsewhere")
    assert took(free.add) < 1
    assert free.dials_out() == OUT
    with pytest.raises(PluginError, match="the agent on this node is not answering") as caught:
        web.add()
    assert (caught.value.code, "namespace shop is in the mesh" in str(caught.value)) == (TRY_AGAIN_LATER, True)
    with pytest.raises(PluginError, match="namespace new is not known to be outside the mesh"):
        node.sandbox("any", "new").add()
    assert took(web.delete) < 1, "what ends, ends"


def test_a_pod_that_waits_goes_on_when_the_agent_is_back(node: Node, web: Sandbox) -> None:
    node.kill()
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(web.add)
        node.start()
        adding.result(20)
    assert web.dials_out() == REFUSED


def test_a_stopped_agent_holds_up_the_mesh_only(node: Node, web: Sandbox) -> None:
    node.send(signal.SIGSTOP)
    free = node.sandbox("free", "elsewhere")
    assert took(free.add) < 5
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(web.add)
        time.sleep(1)
        assert not adding.done()
        node.send(signal.SIGCONT)
        adding.result(10)
    assert web.dials_out() == REFUSED


def test_a_sandbox_that_is_made_anew_is_captured_and_nothing_is_left_of_the_first(node: Node, web: Sandbox) -> None:
    web.add()
    node.write(node.pod("web", ip="10.78.1.2"))
    eventually("the World has it", lambda: node.address_of("shop/web") == "10.78.1.2")
    web.delete()
    eventually("nothing is captured", lambda: node.pinned() == [])
    assert "1508" not in web.rules()
    web.delete()  # runtimes do
    second = node.sandbox("web")
    result = json.loads(second.add())
    assert result["ips"][0]["address"] == "10.78.1.3/24", "while the World still has the first one's address"
    assert (second.dials_out(), node.pinned()) == (REFUSED, [second.cookie])
    web.delete()  # of the first one, late
    assert node.pinned() == [second.cookie]


def test_a_second_sandbox_takes_the_place_of_one_that_nobody_took_down(node: Node, web: Sandbox) -> None:
    web.add()
    second = node.sandbox("web")
    second.add()
    assert second.dials_out() == REFUSED
    eventually("the first is let go", lambda: node.pinned() == [second.cookie])
    assert web.dials_out() == OUT


def test_a_second_sandbox_takes_the_place_of_one_whose_end_was_missed(node: Node, web: Sandbox) -> None:
    web.add()
    node.kill()
    web.delete()
    web.remove_netns()
    node.start(ready=False)
    second = node.sandbox("web")
    second.add()
    assert second.dials_out() == REFUSED
    eventually("the first is forgotten", lambda: node.pinned() == [second.cookie])
    eventually("all is well", node.is_ready)


def test_a_network_namespace_that_is_gone_already_is_no_matter(node: Node, web: Sandbox) -> None:
    web.add()
    web.remove_netns()
    node.ours(web.attachment, "DEL")
    eventually("nothing is captured", lambda: node.pinned() == [])
    assert not node.status()["pods"]["shop/web"]["captured"]


def test_a_pod_without_address_and_process_stays_captured_when_the_agent_is_killed(node: Node, web: Sandbox) -> None:
    web.add()
    node.kill()
    node.start()
    assert node.status()["pods"]["shop/web"]["captured"]
    assert (web.dials_out(), node.pinned()) == (REFUSED, [web.cookie])
    assert eventually("a record", node.records)[0]["source_workload"] == "web"


def test_check_finds_what_is_not_captured(node: Node, web: Sandbox) -> None:
    result = web.add()
    node.chain.check(web.attachment, result)
    unseen = Attachment(container="c", namespace="shop", name="web", uid=web.uid)
    web.delete()
    done = node.ours(unseen, "CHECK", result)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 100)


def test_many_pods_at_once_are_all_captured_when_they_start(node: Node) -> None:
    names = [f"p{number}" for number in range(20)]
    node.write(*(node.pod(name) for name in names))
    sandboxes = [node.sandbox(name) for name in names]
    with ThreadPoolExecutor(len(sandboxes)) as pool:
        list(pool.map(Sandbox.add, sandboxes))
    assert node.pinned() == sorted(each.cookie for each in sandboxes)
    assert {each.dials_out() for each in sandboxes} == {REFUSED}


def test_a_new_pods_first_connection_waits_for_the_news_of_its_address(node: Node, web: Sandbox) -> None:
    """A peer on another node, whose certificate is good, is here before this node's World has heard of it."""
    web.add()
    app = web.start(apps.serve, "10.78.1.2", 8080)
    assert app.receive() == "listening"
    leaf = stolen.issued_by(node.folder / "ca", "api")
    api = node.pod("api", on="node2", ip="10.78.1.1")
    later = threading.Timer(1.0, node.write, [ANOTHER_NODE, api])
    later.start()
    before = time.monotonic()
    with linux.inside_netns(Path(f"/run/netns/{node.base.name}")):
        sock = h2peer.tls(("10.78.1.2", TUNNEL_PORT), leaf.client_context())
    with h2peer.Peer(sock, client=True) as peer:
        assert peer.ask("10.78.1.2:8080").status == 200
    assert 0.9 < time.monotonic() - before < 4
    later.join()
    row = eventually("its record", node.records)[-1]
    assert (row["verdict"], row["source_workload"]) == ("allow", "api")


def test_an_agent_installs_the_plugin_and_uninstalling_leaves_nothing_while_pods_go_on(bare: Node) -> None:
    bare.with_installer()
    before = bare.own_config.read_bytes()
    bare.start()
    bare.use_installed()
    assert [plugin["type"] for plugin in bare.chain.plugins] == ["ptp", "ambient-cni"]
    bare.write(bare.pod("web"))
    web = bare.sandbox("web")
    web.add()
    assert web.dials_out() == REFUSED
    where = ["--cni-bin-dir", bare.bin_dir, "--cni-conf-dir", bare.conf_dir, "--run-dir", bare.run_dir]
    done = bare.command("uninstall", *map(str, where))
    assert "no pod of this node is captured any more" in done.stdout, done.stderr
    assert web.dials_out() == OUT
    bare.kill(signal.SIGTERM)
    assert [path.name for path in bare.conf_dir.iterdir()] == [bare.own_config.name]
    assert (bare.own_config.read_bytes(), list(bare.bin_dir.iterdir())) == (before, [])
    assert (list(bare.bpffs.glob("ambient-*")), "1508" in web.rules()) == ([], False)
    assert {"namespaces", "sandboxes"}.isdisjoint(path.name for path in bare.run_dir.iterdir())
    bare.use_installed()
    later = bare.sandbox("later")
    later.add()
    assert later.dials_out() == OUT
    bare.start()
    assert eventually("it is installed again", lambda: len(list(bare.conf_dir.iterdir())) == 2)


def test_a_dead_agents_capture_is_removed_by_uninstall(node: Node, web: Sandbox) -> None:
    web.add()
    node.kill()
    where = {"--run-dir": node.run_dir, "--cgroup": node.base.cgroup, "--bpffs": node.bpffs}
    places = {"--cni-bin-dir": node.folder / "none", "--cni-conf-dir": node.folder / "none"}
    done = node.command("uninstall", *(str(word) for pair in (where | places).items() for word in pair))
    assert done.returncode == 0, done.stderr
    assert (list(node.bpffs.glob("ambient-*")), "1508" in web.rules(), web.dials_out()) == ([], False, OUT)
