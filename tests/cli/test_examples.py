"""Every call of `ambient` in the documentation is one that this version understands, and help is told whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ambient import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"^(?:\$ |.* -- )?ambient (.+)$", re.MULTILINE)  # at a shell, or in a pod by kubectl
SPAN = re.compile(r"`ambient ([^`]+)`")


def calls() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            yield from ((page.name, line) for line in CALL.findall(block))


def spans() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for span in SPAN.findall(page.read_text()):
            *before, last = span.replace("\\|", "|").rpartition(" ")
            yield from ((page.name, "".join([*before, each])) for each in last.split("|"))


@pytest.mark.parametrize(("page", "line"), list(calls()))
def test_a_call_in_a_block_is_understood_as_it_stands(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del page
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path)
    reached: list[str] = []
    monkeypatch.setattr(click.Command, "invoke", lambda _, context: reached.append(context.command_path))
    done = CliRunner().invoke(cli.main, shlex.split(line, comments=True), prog_name="ambient", catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert line.startswith(reached[-1].removeprefix("ambient ").split()[0])


@pytest.mark.parametrize(("page", "span"), list(spans()))
def test_a_call_in_a_sentence_names_a_command_and_its_options(page: str, span: str) -> None:
    """Its words in capitals stand for others."""
    del page
    command: click.Command = cli.main
    options = {"--help", "-h"}
    with click.Context(command) as context:
        for word in span.split(" -- ")[0].split():
            options |= {name for param in command.params for name in param.opts}
            if word.startswith("-"):
                assert word in options, f"{command.name} has no {word}"
            elif isinstance(command, click.Group):
                found = command.get_command(context, word)
                assert found is not None, f"there is no {word}"
                command = found


def test_calls_are_found() -> None:
    """Or the tests above would pass whatever is written."""
    assert len(list(calls())) > 20
    assert ("README.md", "lab exec") in list(spans())
    assert ("observability.md", "get engines") in list(spans())


def groups() -> Iterator[tuple[str, ...]]:
    yield ()
    with click.Context(cli.main) as context:
        for name in cli.COMMANDS:
            if isinstance(cli.main.get_command(context, name), click.Group):
                yield (name,)


@pytest.mark.parametrize("group", list(groups()), ids=" ".join)
def test_a_list_of_commands_says_each_in_a_whole_sentence(group: tuple[str, ...]) -> None:
    """On a terminal of 80 columns; click cuts what does not fit, in the middle."""
    text = CliRunner(env={"COLUMNS": "80"}).invoke(cli.main, [*group, "--help"]).stdout
    _, _, listed = text.partition("Commands:\n")
    for line in listed.splitlines():
        assert not line.endswith("..."), line
        assert re.match(r"  \S+ +\S", line), f"it takes a second line: {line}"
