"""What `daemonset.yaml` lets agent and engine do is what they need: with it everything works, with less it does not."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ambient.dataplane.process import BINARY as ENGINE
from ambient.lab.process import Entrance
from tests.capture import apps
from tests.cni.node import PROGRAMS, Node, eventually
from tests.cni.runtime import Chain, PluginError
from tests.cni.test_pod_start import REFUSED, SHOP

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[2]


def capabilities(daemonset: str) -> list[str]:
    for manifest in yaml.safe_load_all((ROOT / "daemonset.yaml").read_text()):
        if (manifest["kind"], manifest["metadata"]["name"]) == ("DaemonSet", daemonset):
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            given: dict[str, Any] = container["securityContext"]["capabilities"]
            assert given["drop"] == ["ALL"]
            return list(given["add"])
    raise AssertionError(f"no DaemonSet {daemonset}")


def only(names: list[str]) -> list[str]:
    """The words before a command that is to have these capabilities and cannot get others."""
    kept = "".join(f",+{name.lower()}" for name in names)
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all{kept}", f"--inh-caps=-all{kept}"]


@contextlib.contextmanager
def a_node(agent: list[str], engine: list[str]) -> Iterator[Node]:
    """With an engine and an agent that were started with these capabilities, and may not be well."""
    with (
        tempfile.TemporaryDirectory(prefix="amb") as folder,  # short: it has unix sockets
        contextlib.closing(Node(Path(folder))) as node,
    ):
        node.write(SHOP)
        node.run_dir.mkdir()
        (node.base.cgroup / "engine").mkdir()
        where = Entrance(cgroup=node.base.cgroup / "engine", netns=Path(f"/run/netns/{node.base.name}"))
        words = [*only(engine), ENGINE, "--run-dir", node.run_dir, "--threads", "1"]
        running = subprocess.Popen(words, preexec_fn=where)
        try:
            node.prefix, node.options = only(agent), ["--engine", "wait"]
            node.start(ready=False)
            yield node
        finally:
            running.kill()
            running.wait()


def captures(node: Node) -> str:
    """What does not work; empty: a pod that runs and one that starts are both captured, and so is what they dial."""
    runs, starts = node.sandbox("runs"), node.sandbox("starts")
    try:
        Chain(node.chain.plugins[:1], PROGRAMS, node.chain.prefix).add(runs.attachment)
        runs.start(apps.serve, "127.0.0.1", 8080)
        node.write(node.pod("runs", ip="10.78.1.2"), node.pod("starts"))
        eventually("the agent is ready", node.is_ready, within=4)
        starts.add()
    except (AssertionError, PluginError) as error:
        return str(error)
    return "" if {each.dials_out() for each in (runs, starts)} == {REFUSED} else "not captured"


def test_with_what_the_file_gives_them_everything_works() -> None:
    with a_node(capabilities("ambient-agent"), capabilities("ambient-engine")) as node:
        assert captures(node) == ""


@pytest.mark.parametrize("missing", capabilities("ambient-agent"))
def test_without_one_of_its_capabilities_an_agent_cannot_do_its_work(missing: str) -> None:
    left = [name for name in capabilities("ambient-agent") if name != missing]
    with a_node(left, capabilities("ambient-engine")) as node:
        assert captures(node)


@pytest.mark.parametrize("missing", capabilities("ambient-engine"))
def test_without_one_of_its_capabilities_an_engine_does_not_start(missing: str) -> None:
    left = [name for name in capabilities("ambient-engine") if name != missing]
    with tempfile.TemporaryDirectory(prefix="amb") as folder:
        words = [*only(left), ENGINE, "--run-dir", folder, "--threads", "1"]
        done = subprocess.run(words, capture_output=True, timeout=5, check=False)
    assert done.returncode > 0, done.stderr
