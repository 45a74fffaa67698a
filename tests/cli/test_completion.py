"""What the shell offers: the labs there are, and what is in the one that is meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from ambient.cli import main

FILES = (
    "namespace_shop.yaml",
    "node_node1.yaml",
    "node_node2.yaml",
    "pod_shop_client.yaml",
    "pod_shop_web.yaml",
    "pod_bank_teller.yaml",
    "service_shop_web.yaml",
)


@pytest.fixture(autouse=True)
def lab(places: Path) -> Path:
    """The labs lab and two; everything is in the first."""
    for name in ("lab", "two"):
        (places / "lab" / name / "cluster").mkdir(parents=True)
    for file in FILES:
        (places / "lab" / "lab" / "cluster" / file).touch()
    return places / "lab" / "lab"


def offered(*words: str) -> list[str]:
    *before, incomplete = words
    return [item.value for item in ShellComplete(main, {}, "ambient", "").get_completions(list(before), incomplete)]


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        pytest.param(("lab", "status", "--lab", ""), ["lab", "two"], id="labs"),
        pytest.param(("get", "workloads", "--lab", "t"), ["two"], id="labs that begin so"),
        pytest.param(("get", "workloads", "--node", ""), ["node1", "node2"], id="nodes"),
        pytest.param(("lab", "exec", ""), ["bank/teller", "shop/client", "shop/web"], id="pods"),
        pytest.param(("lab", "exec", "--lab", "two", ""), [], id="another lab's pods"),
        pytest.param(("explain", "--from", "shop/"), ["shop/client", "shop/web"], id="where from"),
        pytest.param(("explain", "--to", ""), ["web:"], id="where to"),
        pytest.param(("trace", "--pod", "b"), ["bank/teller"], id="a pod to watch"),
        pytest.param(("verify", ""), ["shop"], id="a namespace to prove"),
        pytest.param(("get", "workloads", "-o", ""), ["table", "json"], id="what there is to choose from"),
        pytest.param(("lab", "r"), [], id="nothing that is not for people"),
        pytest.param(("as",), [], id="no command that is not either"),
        pytest.param(("ca", "ro"), ["rotate"], id="a step"),
        pytest.param(("lab", "logs", "n"), ["node/node1", "node/node2"], id="logs"),
        pytest.param(("lab", "label", "ns/"), ["ns/shop"], id="a namespace to label"),
        pytest.param(("lab", "label", "pod/shop/"), ["pod/shop/client", "pod/shop/web"], id="a pod to label"),
    ],
)
def test_what_exists_is_offered(words: tuple[str, ...], offers: list[str]) -> None:
    assert offered(*words) == offers


def test_the_lab_of_the_environment_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMBIENT_LAB", "two")
    assert offered("lab", "exec", "") == []


def test_where_nothing_may_be_seen_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert offered("lab", "exec", "") == offered("lab", "status", "--lab", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    environment = {**os.environ, "_AMBIENT_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "ambient"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_AMBIENT_COMPLETE={shell}_complete" in done.stdout
