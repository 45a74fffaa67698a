"""The mesh is taken away while traffic runs: nothing of it is left, and whom it did not serve does not notice."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kube import Cluster
from tests.cluster.footprint import Footprint, differences, settled
from tests.cluster.manifests import ENROL, server
from tests.cluster.mesh import NAMESPACE, Mesh
from tests.cluster.space import Space
from tests.cluster.wire import tap
from tests.mesh.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
FILE = Path(__file__).parents[2] / "daemonset.yaml"
INSIDE = "inside"
ON_NODE = ["/opt/cni/bin/ambient-cni", "/etc/cni/net.d/0-ambient.conflist"]
SOON_S = 10.0  # an agent looks every 5 s whether it is to go
FILES = "find /opt/cni/bin /etc/cni/net.d /sys/fs/bpf -printf '%p %m %s\\n' | sort; sha256sum /etc/cni/net.d/*"
IN_PODS = """
for netns in $(ls /run/netns); do
  for what in 'rule' '-6 rule' 'route show table all' '-6 route show table all'; do
    ip -n $netns $what | sed "s/^/$netns: /"
  done
done
"""


def as_documented(mesh: Mesh, cluster: Cluster) -> None:
    """docs/install.md: nobody is in the mesh any more when it is removed."""
    cluster.kubectl("label", "namespaces", "--all", "ambient.dev/mode-")
    eventually("nobody is captured", lambda: not Space(cluster, INSIDE).captured(), within=30)
    mesh.remove()


def at_once(mesh: Mesh, _: Cluster) -> None:
    mesh.remove()


def its_namespace_first(_: Mesh, cluster: Cluster) -> None:
    cluster.kubectl("delete", "namespace", NAMESPACE)


def left_on(cluster: Cluster) -> dict[str, list[str]]:
    """Files, programs and what is inside the pods' network namespaces, of every node."""
    return {
        f"{name} {what}": node.run(["sh", "-c", command]).stdout.splitlines()
        for name, node in cluster.nodes.items()
        for what, command in (("files", FILES), ("pods", IN_PODS))
    }


@pytest.fixture(scope="module")
def inside(cluster: Cluster) -> Iterator[Space]:
    """Two pods that a test enrols."""
    space = Space(cluster, INSIDE)
    space.create()
    space.run(server("web", "node2"), server("client", "node1"))
    yield space
    cluster.kubectl("delete", "namespace", space.name)


@pytest.fixture(scope="module")
def before(cluster: Cluster, inside: Space, shop: Space) -> tuple[Footprint, Footprint]:
    del inside, shop  # only to be there
    return settled(cluster, without=NAMESPACE), left_on(cluster)


# An engine ends with what it carries: what is under way in that moment is cut, unless there is nothing any more.
@pytest.mark.parametrize(("remove", "cuts"), [(as_documented, 0), (at_once, 10), (its_namespace_first, 10)])
def test_it_leaves_nothing_and_breaks_nothing(
    cluster: Cluster,
    inside: Space,
    shop: Space,
    before: tuple[Footprint, Footprint],
    remove: Callable[[Mesh, Cluster], None],
    cuts: int,
) -> None:
    cluster.kubectl("label", "namespace", INSIDE, ENROL)
    out, home = shop.ips("web-2")[0], inside.ips("web")[0]
    with Mesh(cluster, FILE) as mesh, shop.puppet("client") as stranger, inside.puppet("client") as client:
        eventually("both are captured", lambda: inside.captured() == {"web", "client"}, within=30)
        assert not stranger.open("chat", out, 8080).error
        assert not stranger.do("chat", name="chat").error
        assert not stranger.do("newcomers", name="new", to=out, port=8080).error
        assert not client.do("newcomers", name="new", to=home, port=8080).error
        assert not client.do("fresh", name="new", times=3).error
        remove(mesh, cluster)
        for puppet, job in ((stranger, "chat"), (stranger, "new"), (client, "new")):
            assert not puppet.do("fresh", name=job, times=3).error
        chat, new, own = (
            stranger.do("finish", name="chat"),
            stranger.do("finish", name="new"),
            client.do("finish", name="new"),
        )
        word = "secret-" + secrets.token_hex(12)
        with tap(cluster, "node2") as underlay:
            assert client.ask(home, 8080, f"echo {word}").reply == word
    assert (chat.error, new.failed) == ("", []), "of those outside"
    assert len(own.failed) <= cuts, own
    assert own.slowest < SOON_S, "and nobody inside waits for long"
    assert list(underlay.said(word.encode())), "in the clear, as before there was a mesh"
    assert differences(before[1], left_on(cluster)) == []
    assert differences(before[0], settled(cluster, without=NAMESPACE)) == []
    cluster.kubectl("label", "namespaces", "--all", "ambient.dev/mode-")


def test_a_mistake_in_the_agents_rights_uninstalls_nothing(cluster: Cluster) -> None:
    """An agent's pod that is deleted then has a hook that is refused, as after a removal; but the DaemonSet stays."""
    node, mine = cluster.nodes["node2"], ("--namespace", NAMESPACE)
    with Mesh(cluster, FILE) as mesh:
        eventually("it is installed", lambda: node.run(["ls", *ON_NODE], check=False).returncode == 0)
        cluster.kubectl(*mine, "delete", "rolebinding", "ambient-agent")
        chosen = ("-l", "app.kubernetes.io/name=ambient-agent", "--field-selector=spec.nodeName=node2")
        cluster.kubectl(*mine, "delete", "pods", *chosen)
        node.run(["ls", *ON_NODE])
        mesh.apply()
        cluster.kubectl(*mine, "rollout", "restart", "daemonset/ambient-agent")
        mesh.await_rollout()


def test_a_node_that_was_down_meanwhile_holds_nobody_up(cluster: Cluster, shop: Space) -> None:
    """Its plugin is still on its disk and nobody is there to be asked, now and for ever."""
    node = cluster.nodes["node2"]
    with Mesh(cluster, FILE):
        eventually("it is installed", lambda: node.run(["ls", *ON_NODE], check=False).returncode == 0)
        node.kill()
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        forced = ("--namespace", NAMESPACE, "delete", "pods", "--field-selector=spec.nodeName=node2", "--force")
        cluster.kubectl(*forced, "--grace-period=0", "--wait=false")
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    node.boot()
    node.start_kubernetes()
    cluster.await_ready("node2", now)
    node.run(["ls", *ON_NODE])
    shop.apply(server("after", "node2"))
    shop.kubectl("wait", "--for=condition=Ready", "--timeout=150s", "pod/after")
    shop.kubectl("delete", "pod", "after", "--wait=false")
    node.run(["rm", *ON_NODE])
