"""What every command ends with: 1 no or failed, 2 wrong usage, 3 nobody to ask, 4 something is lacking."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result
from observe.worlds import a_pod, a_world

from ambient import cli, config
from ambient.cli.errors import Exit

from .conftest import agents, handlers

Run = Callable[..., Result]
NOWHERE = "nosuchlab"  # no test makes it
MANIFEST = "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n"
BAD = "apiVersion: v1\nkind: Nodes\nmetadata: {name: n}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with good.yaml, bad.yaml and none.yaml (which is not there)."""
    (tmp_path / "good.yaml").write_text(MANIFEST)
    (tmp_path / "bad.yaml").write_text(BAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    with click.Context(cli.main) as context:
        for name in cli.main.list_commands(context):
            command = cli.main.get_command(context, name)
            below = command.commands if isinstance(command, click.Group) else {}
            found += [(name, other) for other, sub in below.items() if not sub.hidden] or [(name,)]
    return found


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_has_help_and_refuses_what_it_does_not_know(command: tuple[str, ...], run: Run) -> None:
    assert run(*command, "--help").exit_code == Exit.OK
    assert run(*command, "--no-such-option", "x").exit_code == Exit.USAGE


def test_the_exit_codes_are_in_the_help(run: Run) -> None:
    text = " ".join(run("--help").stdout.split())
    for code in Exit:
        assert f"{code.value} " in text


WRONG_USAGE = [
    ("agent", "--source", "none"),
    ("agent", "--source", ".", "--ca-dir", ".", "--engine-threads", "0"),
    ("ca", "status"),
    ("ca", "--ca-dir", "."),
    ("ca", "--ca-dir", ".", "drop-old-root", "--longest-hours", "-1"),
    ("check", "-f", "none.yaml"),
    ("check", "-o", "yaml"),
    ("explain", "--from", "shop/client"),
    ("explain", "--from", "client", "--to", "web:80"),
    ("explain", "--from", "shop/client", "--to", "web"),
    ("explain", "--from", "shop/client", "--to", "web:99999"),
    ("get",),
    ("get", "workload"),
    ("get", "workloads", "--lab", "A-b"),
    ("get", "workloads", "--lab", "one", "--socket", "x"),
    ("lab",),
    ("lab", "up"),
    ("lab", "up", "-f", "none.yaml"),
    ("lab", "up", "-f", "good.yaml", "--lab", "A-b"),
    ("lab", "up", "-f", "good.yaml", "--lab", "a" * 21),
    ("lab", "up", "-f", "good.yaml", "--timeout", "-1"),
    ("lab", "apply", "-f", "good.yaml", "--timeout", "soon"),
    ("lab", "delete"),
    ("lab", "check"),
    ("lab", "check", "-f", "none.yaml"),
    ("lab", "label", "ns/shop"),
    ("lab", "label", "shop", "a=b"),
    ("lab", "label", "ns/shop", "nonsense"),
    ("lab", "label", "ns/shop", "a b=c"),
    ("lab", "exec", "shop/client"),
    ("lab", "exec", "client", "--", "true"),
    ("lab", "logs"),
    ("lab", "logs", "client"),
    ("lab", "status", "--lab", "a_b"),
    ("lab", "down", "--lab", ""),
    ("lab", "demo", "--lab", "A"),
    ("trace", "--for", "-1"),
    ("trace", "--pod", "client"),
    ("trace", "--cluster"),
    ("verify",),
    ("verify", "shop/web"),
    ("verify", "shop", "--cluster", "--socket", "x"),
]


@pytest.mark.parametrize("command", WRONG_USAGE, ids=" ".join)
@pytest.mark.usefixtures("here", "places")
def test_wrong_usage_is_2_and_prints_nothing(command: tuple[str, ...], run: Run) -> None:
    result = run(*command)
    assert (result.exit_code, result.stdout) == (Exit.USAGE, ""), result.output
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("ca", "--ca-dir", "none", "status"),
        ("check", "-f", "bad.yaml", "-f", "good.yaml", "--root-namespace", "x", "-f", "broken.yaml"),
        ("lab", "check", "-f", "bad.yaml"),
        ("lab", "up", "-f", "bad.yaml", "--lab", NOWHERE),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("places")
def test_what_does_not_work_is_1_and_prints_nothing(command: tuple[str, ...], here: Path, run: Run) -> None:
    (here / "broken.yaml").write_text("a: [")
    result = run(*command)
    assert (result.exit_code, result.stdout) == (Exit.NO, ""), result.output
    assert result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "--from", "shop/none", "--to", "web:80"),
        ("explain", "--from", "shop/web", "--to", "none:80"),
        ("get", "workloads", "--lab", "one", "--node", "none"),
        ("verify", "shop", "--lab", "one", "--node", "none"),
    ],
    ids=" ".join,
)
def test_what_is_not_found_is_1(command: tuple[str, ...], places: Path, run: Run) -> None:
    world = a_world(a_pod("shop/web", "10.0.0.2", node="a"))
    with agents({places / "lab/one/nodes/a/run/admin.sock": handlers(world, "a")}):
        result = run(*command)
    assert (result.exit_code, result.stdout) == (Exit.NO, ""), result.output
    assert result.stderr.startswith("Error: ")


NOBODY = [
    ("explain", "--from", "shop/client", "--to", "web:80"),
    ("get", "workloads"),
    ("get", "workloads", "--lab", NOWHERE),
    ("get", "workloads", "--socket", "none"),
    ("lab", "apply", "-f", "good.yaml", "--lab", NOWHERE),
    ("lab", "delete", "-f", "good.yaml", "--lab", NOWHERE),
    ("lab", "exec", "--lab", NOWHERE, "shop/client", "--", "true"),
    ("lab", "label", "ns/shop", "a=b", "--lab", NOWHERE),
    ("lab", "logs", "shop/client", "--lab", NOWHERE),
    ("lab", "status", "--lab", NOWHERE),
    ("verify", "shop"),
    ("verify", "shop", "--lab", NOWHERE),
]


@pytest.mark.parametrize("command", NOBODY, ids=" ".join)
@pytest.mark.usefixtures("here", "places")
def test_nobody_to_ask_is_3(command: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = run(*command)
    assert (result.exit_code, result.stdout) == (Exit.NOBODY, ""), result.output
    assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    "command",
    [
        ("get", "workloads", "--lab", NOWHERE),
        ("lab", "up", "-f", "good.yaml", "--lab", NOWHERE),
        *(command for command in NOBODY if command[0] == "lab"),
        ("lab", "down", "--lab", NOWHERE),
        ("trace",),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("here", "places")
def test_without_root_is_4_and_says_so(command: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    result = run(*command)
    assert (result.exit_code, result.stdout) == (Exit.LACKING, ""), result.output
    assert "root" in result.stderr


@pytest.mark.usefixtures("places")
def test_removing_a_lab_that_is_not_there_is_no_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = run("lab", "down", "--lab", NOWHERE)
    assert (result.exit_code, result.stdout) == (Exit.OK, "")
    assert result.stderr.startswith(f"there is no lab {NOWHERE!r}: nothing to do")


def test_a_machine_without_cgroup_v2_is_4(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise LookupError("no cgroup v2 hierarchy is mounted: mount -t cgroup2 ...")

    monkeypatch.setattr(config, "cgroup2_root", none)
    for command in (("lab", "status"), ("agent", "--source", here, "--ca-dir", here / "ca")):
        result = run(*command)
        assert result.exit_code == Exit.LACKING, result.output
        assert "no cgroup v2 hierarchy is mounted" in result.stderr
