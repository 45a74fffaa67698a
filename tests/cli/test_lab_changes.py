"""`ambient lab label`, `apply` and `delete` say what they changed; a daemon is played."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ambient.cli.errors import Exit
from ambient.cli.lab import ENDING
from ambient.lab import Lab
from ambient.lab.errors import NotReady

Run = Callable[..., Result]
CHANGES = ["namespace/shop labeled", "pod/shop/web unchanged"]
COMMANDS = [("label", "ns/shop", "a=b"), ("apply", "-f", "-"), ("delete", "-f", "-")]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the daemon says to whatever it is asked."""
    said: dict[str, Any] = {"remarks": ["pod shop/x was not waited for"], "changes": CHANGES}

    def ask(_lab: Lab, _verb: str, _patience: float, /, **_: object) -> Any:
        if "error" in said:
            raise said["error"]
        return said

    monkeypatch.setattr(Lab, "_ask", ask)
    return said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.usefixtures("answer")
def test_people_are_told_of_each_object_in_a_line(command: tuple[str, ...], run: Run) -> None:
    result = run("lab", *command)
    assert (result.exit_code, result.stdout.splitlines()) == (Exit.OK, CHANGES)
    assert result.stderr == "Note: pod shop/x was not waited for\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.usefixtures("answer")
def test_programs_have_the_value_they_had(command: tuple[str, ...], run: Run) -> None:
    result = run("lab", *command, "-o", "json")
    did = {"did": command[0], "lab": "lab", "notes": ["pod shop/x was not waited for"]}
    assert (result.exit_code, json.loads(result.stdout)) == (Exit.OK, did)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_does_not_get_ready_was_changed_all_the_same(
    command: tuple[str, ...], run: Run, answer: dict[str, Any]
) -> None:
    answer["error"] = NotReady("not ready after 1 s", CHANGES)
    result = run("lab", *command)
    assert (result.exit_code, result.stdout.splitlines()) == (Exit.NO, CHANGES)
    assert result.stderr.startswith("Error: not ready after 1 s\nThe change was made and stays")


def test_signals_mean_afterwards_what_they_meant_before(tmp_path: Path, run: Run) -> None:
    before = [signal.getsignal(number) for number in ENDING]
    (tmp_path / "bad.yaml").write_text("a: [")
    assert run("lab", "up", "-f", tmp_path / "bad.yaml").exit_code == Exit.NO
    assert [signal.getsignal(number) for number in ENDING] == before


@pytest.mark.parametrize(("existed", "said"), [(True, "lab 'lab' is gone\n"), (False, "")])
def test_a_lab_that_is_removed_is_told_of(existed: bool, said: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lab, "down", lambda _: existed)
    result = run("lab", "down")
    assert (result.exit_code, result.stdout) == (Exit.OK, said)
