"""Wrong input to a bench or a tool is wrong usage, a machine that lacks something is told so: never a traceback."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ambient.cli.errors import Exit
from bench import command

ROOT = Path(__file__).parents[2]
MODULES = [
    "bench.__main__",
    "bench.control.__main__",
    "bench.control.agents",
    "bench.control.apiserver",
    "bench.control.ca_server",
    "bench.control.certificates",
    "bench.control.inprocess",
    "bench.control.real",
    "bench.control.served",
    "bench.control.source",
    "bench.direct.__main__",
    "bench.direct.programs",
    "bench.direct.records",
    "bench.disruption.__main__",
    "bench.disruption.plane",
    "bench.setsockopt.__main__",
    "bench.soak.__main__",
    "hack.kube.__main__",
    "hack.vm.__main__",
]


def run(module: str, *words: str) -> Result:
    return CliRunner().invoke(importlib.import_module(module).main, words, catch_exceptions=False)


def test_none_that_can_be_run_is_missing_here() -> None:
    runnable = {
        str(path.relative_to(ROOT)).removesuffix(".py").replace("/", ".")
        for folder in ("bench", "hack")
        for path in (ROOT / folder).rglob("*.py")
        if "click.command(" in (text := path.read_text()) or "click.group(" in text
    }
    assert runnable == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_every_one_has_help_and_refuses_what_it_does_not_know(module: str) -> None:
    assert run(module, "--help").exit_code == Exit.OK
    assert run(module, "--no-such-option", "x").exit_code == Exit.USAGE


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        ("bench.__main__", "--modes nope", "choose among none"),
        ("bench.__main__", "--only ,", "nothing is named"),
        *(("bench.control.__main__", f"--sizes {text}", "expected numbers from 1 on") for text in ("abc", "0", "1,,2")),
        ("bench.control.__main__", "--target foo", "is not HOST:PORT"),
        ("bench.control.__main__", "--target foo:1", "needs --pid"),
        ("bench.control.real", "--sizes -5", "expected numbers from 1 on"),
        ("bench.control.source", "--pods 10", "expected numbers from 202 on"),
        ("bench.control.certificates", "--seconds 0", "not in the range"),
        ("bench.control.agents", "1 foo name .", "is not HOST:PORT"),
        ("bench.control.agents", "x localhost:1 name .", "not a valid integer"),
        ("bench.control.inprocess", "1 2", "Missing argument"),
        ("bench.control.served", "1 none", "does not exist"),
        ("bench.disruption.plane", ". . nowhere:1 1", "expected a DNS name"),
        ("bench.soak.__main__", "--minutes nan", "expected a number of minutes"),
        ("hack.kube.__main__", "load none", "does not exist"),
        ("hack.vm.__main__", "test --machines 0", "not in the range"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(module: str, words: str, said: str) -> None:
    result = run(module, *words.split())
    assert result.exit_code == Exit.USAGE, result.output
    assert said in result.stderr


@pytest.mark.parametrize(
    "module", ["control.real", "direct.__main__", "direct.programs", "disruption.__main__", "setsockopt.__main__"]
)
def test_who_needs_root_says_so_before_anything_is_begun(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    result = run(f"bench.{module}")
    assert result.exit_code == Exit.LACKING
    assert result.stderr.startswith("Error: it needs root to ")


@pytest.mark.parametrize("kept", [None, "{", "[1]", "{}"], ids=["none", "no JSON", "a list", "another bench's"])
def test_results_that_cannot_be_drawn_are_named(tmp_path: Path, kept: str | None) -> None:
    if kept is not None:
        (tmp_path / "mesh.json").write_text(kept)
    result = run("bench.__main__", "--redraw", "--output", str(tmp_path))
    assert (result.exit_code, f"no results to draw: {tmp_path}/mesh.json" in result.stderr) == (Exit.NO, True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "/nowhere"), "No such file or directory: '/nowhere'"),
        (subprocess.CalledProcessError(32, ("mount", "x")), "`mount x` ended with 32; what it said is above"),
        (subprocess.CalledProcessError(1, "date | false", stderr="no\n"), "`date | false` ended with 1: no"),
    ],
    ids=["file", "program", "shell"],
)
def test_what_the_machine_refuses_is_a_sentence(error: Exception, said: str) -> None:
    @click.command(cls=command.Command)
    def fail() -> None:
        raise error

    result = CliRunner().invoke(fail)
    assert (result.exit_code, said in result.stderr) == (Exit.NO, True)


def test_agents_that_cannot_begin_end_though_nobody_ends_their_input(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").touch()
    words = ["-m", "bench.control.agents", "3", "localhost:1", "name", str(tmp_path / "roots.pem")]
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(10) == Exit.NO
    assert said.startswith("Error: no roots by which to know the control plane")
    assert "Traceback" not in said


def test_the_parts_are_measured_of_a_size_that_is_given() -> None:
    assert json.loads(run("bench.control.inprocess", "5", "1", "1").stdout)["resources"] > 5
