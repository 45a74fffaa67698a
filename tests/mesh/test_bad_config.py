"""A manifest that makes no sense is reported where people look, and the last good configuration holds."""

from __future__ import annotations

import pytest
import yaml

from tests.mesh.cluster import NODES, Mesh
from tests.mesh.manifests import Manifest, mtls, policy, shop
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.kernel

MANIFESTS: list[Manifest] = [*shop(), mtls("STRICT")]


@pytest.fixture
def broken(mesh: Mesh):  # type: ignore[no-untyped-def]
    """Write a file into the agents' source behind the lab's back (it refuses such manifests itself)."""
    path = mesh.layout.cluster / "broken.yaml"
    yield lambda text: path.write_text(text)
    path.unlink()
    for node in NODES:
        eventually("the errors are gone", lambda node=node: not mesh.agent(node)["errors"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [b", "broken.yaml"),
        (yaml.safe_dump(mtls("LOOSE", name="x")), "spec.mtls.mode"),
        (yaml.safe_dump(policy("x", rules=[{"from": [{"source": {"principal": ["typo"]}}]}])), "principal"),
    ],
    ids=["not YAML", "a word that is no mode", "an unknown field"],
)
def test_it_is_reported_and_the_last_good_configuration_holds(mesh: Mesh, broken, text: str, named: str) -> None:  # type: ignore[no-untyped-def]
    before = {node: mesh.agent(node)["revision"] for node in NODES}
    broken(text)
    for node in NODES:
        errors = eventually("an error", lambda node=node: mesh.agent(node)["errors"])
        assert any(named in error for error in errors), errors
        assert mesh.agent(node)["revision"] == before[node]
        assert mesh.metrics(node)["ambient_config_errors"] >= 1
    assert mesh.puppet("shop/client").ask("web").error == ""
    assert mesh.puppet("outside/stranger").ask("web.shop").was_refused, "STRICT still holds"


def test_once_mended_it_counts_again(mesh: Mesh) -> None:
    path = mesh.layout.cluster / "later.yaml"
    path.write_text("kind: [")
    try:
        eventually("an error", lambda: mesh.agent("node1")["errors"])
        path.write_text(yaml.safe_dump(policy("nobody", app="web")))
        eventually("no error", lambda: not mesh.agent("node2")["errors"])
        eventually("the policy holds", lambda: mesh.puppet("shop/client").ask("web").was_refused)
    finally:
        path.unlink()
    eventually("the policy is gone", lambda: not mesh.puppet("shop/client").ask("web").error)


def test_an_agent_that_starts_with_it_decides_nothing_and_loses_nothing(mesh: Mesh) -> None:
    """What was decided before goes on, what was not waits in the engine, and so do the records."""
    client = mesh.puppet("shop/client")
    path = mesh.layout.cluster / "later.yaml"
    assert client.ask("web").error == ""
    mesh.await_records(1)
    path.write_text("kind: [")
    try:
        pid = mesh.kill_agent("node1")
        eventually("the next agent is there", lambda: mesh.agent_pid("node1") not in (0, pid))
        eventually("an error", lambda: mesh.agent("node1")["errors"])
        assert client.ask("web").error == ""
        client.do("newcomers", name="unknown", to=mesh.ip("shop/web", 6), port=8082)
        assert client.do("progress", name="unknown", timeout=0.5).error == "timeout", "who answered?"
        assert len(mesh.records("source")) == 1, "it cannot know yet what the second was"
        assert mesh.metrics("node1")["ambient_ready"] == 0
    finally:
        path.unlink()
    result = client.do("finish", name="unknown")
    assert (result.error, result.failed) == ("", []), result
    mesh.await_records(2 + result.worked)


def test_two_objects_of_one_name_are_an_error(mesh: Mesh, broken) -> None:  # type: ignore[no-untyped-def]
    broken(yaml.safe_dump(mtls("PERMISSIVE")))
    eventually("an error", lambda: mesh.agent("node2")["errors"])
    assert mesh.puppet("outside/stranger").ask("web.shop").was_refused
