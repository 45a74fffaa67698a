"""`-o json`: stdout is one JSON value, the same each time; what a person should know besides goes to stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result
from observe.worlds import a_pod, a_service, a_world

from ambient.cli import COMMANDS, lab, main
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


SAYS_NOTHING_ITSELF = {
    ("agent",): "a daemon: its records are JSON lines",
    ("control",): "a daemon",
    ("ask",): "JSON already, for other commands",
    ("lab", "run"): "a daemon",
    ("lab", "exec"): "another program's output",
    ("lab", "logs"): "a file",
    ("lab", "demo"): "a show, with an exit code",
}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        names = COMMANDS if command is main else command.commands
        for name in names:
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from commands(found, (*path, name))
    else:
        yield path, command


def test_every_command_has_it_those_that_change_something_too() -> None:
    without = {path for path, found in commands(main) if "output" not in {each.name for each in found.params}}
    assert without == SAYS_NOTHING_ITSELF.keys()


class Lab:
    """A lab that does what it is told and has something to say about it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _changed(self, *_: object, **__: object) -> list[str]:
        return ["a note"]

    up = apply = delete = label = _changed

    def down(self) -> bool:
        return False


@pytest.mark.parametrize(
    "command",
    [
        ("up", "-f", "{}/ok.yaml"),
        ("apply", "-f", "{}/ok.yaml"),
        ("delete", "-f", "{}/ok.yaml"),
        ("label", "ns/a", "b=c"),
    ],
    ids=str,
)
def test_a_change_of_a_lab_says_what_it_did(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(lab, "Lab", Lab)
    done = run("lab", *(word.format(place) for word in command), "--lab", "one", "-o", "json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"did": command[0], "lab": "one", "notes": ["a note"]}


def test_a_lab_that_was_not_there_is_no_failure_and_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "Lab", Lab)
    done = run("lab", "down", "--lab", "one", "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"did": "down", "lab": "one", "existed": False})


@pytest.mark.parametrize(
    ("command", "roots", "finished"),
    [(("rotate",), ["signs", "will sign"], False), (("add-root",), ["signs", "will sign"], False)],
    ids=str,
)
def test_a_step_of_a_rotation_says_where_it_led(
    place: Path, run: Run, command: tuple[str, ...], roots: list[str], finished: bool
) -> None:
    done = run("ca", "--ca-dir", str(place / "ca"), *command, "-o", "json")
    said = json.loads(done.stdout)
    assert ([row["role"] for row in said["roots"]], said["finished"]) == (roots, finished)
    assert said["newest"] in {row["root"] for row in said["roots"]}
    status = run("ca", "--ca-dir", str(place / "ca"), "status", "-o", "json")
    assert json.loads(status.stdout) == said["roots"]


def test_rows_are_sorted(place: Path, run: Run) -> None:
    def keys(noun: str) -> list[str]:
        return [f"{row['namespace']}/{row['name']}" for row in json.loads(run("get", noun, "-o", "json").stdout)]

    assert place
    assert keys("workloads") == ["bank/teller", "shop/client", "shop/web"]
    assert keys("services") == ["bank/web", "shop/web"]
