"""The command line as a whole: help, exit codes, laziness."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from ambient import __version__
from ambient.cli import COMMANDS

Run = Callable[..., Result]


def ambient(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ambient", *args],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/bin", **env},
    )


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    code = (
        "import sys; sys.argv = ['ambient', '--help']; from ambient.cli import main; main(standalone_mode=False);"
        "heavy = {'rich', 'ambient.model.world', 'yaml', 'cryptography', 'prometheus_client', 'asyncio'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all((f"  {name} " in done.stdout) is bool(command.help) for name, command in COMMANDS.items())


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version").stdout == f"ambient, version {__version__}\n"


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    assert run("dance").exit_code == 2


@pytest.mark.parametrize("name", ["agent", "check", "explain", "get", "trace", "uninstall"])
def test_what_is_listed_can_be_loaded_and_has_help(name: str, run: Run) -> None:
    module, _, command = COMMANDS[name].where.partition(":")
    assert isinstance(getattr(importlib.import_module(module), command), click.Command)
    assert run(name, "--help").exit_code == 0


@pytest.mark.parametrize("one", ["--cni-bin-dir", "--cni-conf-dir"])
def test_an_agent_is_told_both_directories_of_the_plugin_or_none(one: str, tmp_path: Path, run: Run) -> None:
    place = str(tmp_path)
    done = run("agent", "--source", place, "--ca-dir", place, "--cgroup", place, "--bpffs", place, one, place)
    assert (done.exit_code, "go together" in done.output) == (2, True)


def test_completion_knows_commands_and_options() -> None:
    done = ambient(_AMBIENT_COMPLETE="bash_complete", COMP_WORDS="ambient get w", COMP_CWORD="2")
    assert done.stdout == "plain,workloads\n"


def test_a_command_that_fails_says_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    done = ambient("get", "workloads", "--socket", str(tmp_path / "none"))
    assert done.returncode == 3
    assert done.stderr == f"Error: there is no admin socket {tmp_path / 'none'}: is the agent running?\n"
