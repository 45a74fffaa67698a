"""`-o json`: stdout is one JSON value, the same each time; what a person should know besides goes to stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from observe.worlds import a_pod, a_service, a_world

from ambient.identity.ca import EmbeddedCA

from .conftest import agents, handlers

Run = Callable[..., Result]
WORLD = a_world(
    a_pod("shop/web", "10.0.0.2", node="b"),
    a_pod("shop/client", "10.0.0.1", node="a"),
    a_pod("bank/teller", "10.0.0.3", node="a"),
    a_service("shop/web", "10.96.0.2"),
    a_service("bank/web", "10.96.0.1"),
)


@pytest.fixture
def place(places: Path) -> Iterator[Path]:
    """A lab of two nodes whose third agent has died, a CA, and manifests good and bad."""
    (places / "ok.yaml").write_text("apiVersion: v1\nkind: Node\nmetadata: {name: n}\n")
    (places / "bad.yaml").write_text("a: [")
    EmbeddedCA.open(places / "ca", "cluster.local")
    nodes = places / "lab" / "one" / "nodes"
    (nodes / "c" / "run").mkdir(parents=True)
    (nodes / "c" / "run" / "admin.sock").touch()
    with agents({nodes / node / "run" / "admin.sock": handlers(WORLD, node) for node in "ab"}):
        yield places


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("get", "workloads"), 0),
        (("get", "services"), 0),
        (("get", "policies"), 0),
        (("get", "certificates"), 0),
        (("get", "engines"), 0),
        (("get", "connections"), 0),
        (("explain", "--from", "shop/client", "--to", "web:80"), 0),
        (("check", "-f", "{}/ok.yaml"), 0),
        (("check", "-f", "{}/bad.yaml"), 1),
        (("lab", "check", "-f", "{}/ok.yaml"), 0),
        (("lab", "check", "-f", "{}/bad.yaml"), 1),
        (("ca", "--ca-dir", "{}/ca", "status"), 0),
    ],
    ids=str,
)
def test_stdout_is_one_json_value_and_the_same_again(
    place: Path, run: Run, command: tuple[str, ...], code: int
) -> None:
    words = [word.format(place) for word in command]
    first, again = run(*words, "-o", "json"), run(*words, "-o", "json")
    assert (first.exit_code, first.stdout) == (code, again.stdout)
    assert isinstance(json.loads(first.stdout), list | dict)


def test_rows_are_sorted(place: Path, run: Run) -> None:
    def keys(noun: str) -> list[str]:
        return [f"{row['namespace']}/{row['name']}" for row in json.loads(run("get", noun, "-o", "json").stdout)]

    assert place
    assert keys("workloads") == ["bank/teller", "shop/client", "shop/web"]
    assert keys("services") == ["bank/web", "shop/web"]
