"""`ambient uninstall`: files first, the agent is waited for, and a restart is no removal."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ambient.agent.cni import apiserver, install, removal
from ambient.agent.cni.conflist import OWN
from ambient.agent.cni.removal import Finding
from ambient.cli import main
from ambient.dataplane import leftover
from ambient.observe.admin import AdminServer
from tests.dataplane.test_leftover import engine

NODES_OWN = '{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]}'


class Refusing:
    """An API server that lets this pod ask nothing, any more or yet."""

    def get(self, _: str) -> tuple[int, dict[str, Any]]:
        return 401, {}

    def close(self) -> None:
        """There is nothing open."""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Directories with the plugin installed."""
    for name in ("bin", "conf", "run", "bpf"):
        (tmp_path / name).mkdir()
    (tmp_path / "program").write_bytes(b"x")
    (tmp_path / "conf" / "10-node.conflist").write_text(NODES_OWN)
    where = [tmp_path / name for name in ("bin", "conf", "run")]
    install.Installer(*where, [], program=tmp_path / "program").install()
    return tmp_path


def uninstall(node: Path, *options: str) -> Result:
    words = [
        "--cni-bin-dir",
        node / "bin",
        "--cni-conf-dir",
        node / "conf",
        "--run-dir",
        node / "run",
        "--bpffs",
        node / "bpf",
    ]
    return CliRunner().invoke(main, ["uninstall", *map(str, words), *options])


def is_installed(node: Path) -> bool:
    found = {
        (node / "bin" / "ambient-cni").exists(),
        (node / "conf" / OWN).exists(),
        not (node / "run/uninstalled").exists(),
    }
    assert len(found) == 1, "all or nothing"
    return found.pop()


def test_without_an_agent_the_files_are_all(node: Path) -> None:
    assert is_installed(node)
    done = uninstall(node)
    assert (done.exit_code, is_installed(node)) == (0, False)
    assert (node / "conf" / "10-node.conflist").read_text() == NODES_OWN


@pytest.mark.parametrize(
    ("finding", "stays"),
    [(Finding.GONE, False), (Finding.THERE, True), (Finding.UNKNOWN, True)],
    ids=lambda it: str(it),
)
def test_before_an_agents_pod_ends_the_api_server_is_asked(
    node: Path, monkeypatch: pytest.MonkeyPatch, finding: Finding, stays: bool
) -> None:
    asked: list[tuple[str, str]] = []

    def find_out(namespace: str, name: str, *_: object) -> tuple[Finding, str]:
        asked.append((namespace, name))
        return finding, "it was found out"

    monkeypatch.setattr(removal, "find_out", find_out)
    monkeypatch.setattr(apiserver, "ApiServer", Refusing)
    done = uninstall(node, "--if-daemonset-gone", "ambient-system/ambient-agent")
    assert (done.exit_code, is_installed(node), asked) == (0, stays, [("ambient-system", "ambient-agent")])
    assert "it was found out" in done.output


def test_outside_of_a_pod_nothing_is_found_out_and_nothing_removed(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    done = uninstall(node, "--if-daemonset-gone", "a/b")
    assert (done.exit_code, is_installed(node)) == (0, True)
    assert "run `ambient uninstall` here" in done.output


@pytest.mark.parametrize("name", ["agent", "/agent", "ns/"])
def test_a_daemonset_has_a_namespace(node: Path, name: str) -> None:
    assert uninstall(node, "--if-daemonset-gone", name).exit_code == 2
    assert is_installed(node)


def test_what_cannot_be_written_is_said(node: Path) -> None:
    (node / "conf" / OWN).unlink()
    (node / "conf" / OWN).mkdir()
    done = uninstall(node)
    assert (done.exit_code, "cannot be removed" in done.output) == (1, True)


class Agent:
    """Answers `status`: so many pods are captured, one less each time it is asked."""

    def __init__(self, path: Path, captured: int, leaving: int) -> None:
        self._path, self.captured, self.leaving = path, captured, leaving
        self.daemonset_gone = ""
        self.looked = 0
        self._up, self._stop = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)

    async def _status(self, _: dict[str, Any]) -> object:
        pods = {f"shop/{number}": {"captured": number < self.captured} for number in range(3)}
        told = {"pods": pods, "leaving": self.leaving, "daemonset_gone": self.daemonset_gone}
        if self.captured > 0:
            self.captured -= 1
        elif self.leaving > 0:
            self.leaving -= 1
        return told

    async def _look(self, _: dict[str, Any]) -> object:
        self.looked += 1
        return {}

    async def _serve(self) -> None:
        server = AdminServer(self._path, {"status": self._status, "look": self._look})
        await server.start()
        self._up.set()
        await self._stop.wait()
        await server.close()

    def __enter__(self) -> Agent:
        self._thread.start()
        self._up.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def agent(node: Path) -> Iterator[Agent]:
    with Agent(node / "run" / "admin.sock", 1, 1) as agent:
        yield agent


def test_a_running_agent_is_waited_for_until_nothing_is_captured_or_leaving(node: Path, agent: Agent) -> None:
    done = uninstall(node)
    assert (done.exit_code, agent.captured, agent.leaving) == (0, 0, 0)
    assert agent.looked == 1, "it need not find out by itself"
    assert "no pod of this node is captured any more" in done.output


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_engine_of_a_dead_agent_is_ended_and_named(node: Path, output: str) -> None:
    (node / "run" / "admin.sock").touch()
    with engine(node / "run") as process:
        done = uninstall(node, "-o", output)
        assert process.wait(1) == -signal.SIGINT
    said = f"engine {process.pid}, which an agent had left, is ended, with the connections that it carried"
    assert (done.exit_code, said in done.stdout) == (0, True), done.output
    if output == "json":
        assert json.loads(done.stdout)["engines"] == [process.pid]


def test_a_living_agents_engine_is_the_agents(node: Path, agent: Agent) -> None:
    with engine(node / "run") as process:
        assert uninstall(node).exit_code == 0
        assert process.poll() is None
    assert not agent.captured


def test_an_agent_that_does_not_answer_is_left_alone_with_its_engine(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("ambient.cli.uninstall"), "AGENT_S", 0.1)
    with socket.socket(socket.AF_UNIX) as silent, engine(node / "run") as process:
        silent.bind(str(node / "run" / "admin.sock"))
        silent.listen()
        done = uninstall(node, "--wait", "0.3")
        assert process.poll() is None
    assert (done.exit_code, "does not answer, and is left alone: end it" in done.stderr) == (0, True)


def test_without_root_it_says_so(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/opt/cni/bin")

    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    for module, name in ((leftover, "end"), (install, "uninstall")):
        monkeypatch.setattr(module, name, refuse)
        done = uninstall(node)
        assert (done.exit_code, "run this as root" in done.stderr) == (4, True)


def test_the_wait_has_an_end(node: Path, agent: Agent) -> None:
    agent.leaving = 1_000_000
    done = uninstall(node, "--wait", "0.1")
    assert (done.exit_code, "what is open ends with it" in done.output) == (0, True)


@pytest.mark.parametrize(("seen", "stays"), [("it was deleted", False), ("", True)])
def test_whom_the_api_server_refuses_asks_what_the_agent_saw(
    node: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, seen: str, stays: bool
) -> None:
    monkeypatch.setattr(apiserver, "ApiServer", Refusing)
    monkeypatch.setattr(removal, "PATIENCE_S", 0.0)
    agent.daemonset_gone = seen
    done = uninstall(node, "--if-daemonset-gone", "ambient-system/ambient-agent")
    assert (done.exit_code, is_installed(node)) == (0, stays), done.output
    assert (seen or "the API server answers with 401") in done.output


def test_whom_the_api_server_refuses_and_who_has_no_agent_removes_nothing(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apiserver, "ApiServer", Refusing)
    monkeypatch.setattr(removal, "PATIENCE_S", 0.0)
    done = uninstall(node, "--if-daemonset-gone", "ambient-system/ambient-agent")
    assert (done.exit_code, is_installed(node)) == (0, True), done.output


def test_for_a_program_it_says_in_one_value_what_became_of_the_node(node: Path, agent: Agent) -> None:
    said = json.loads(uninstall(node, "-o", "json").stdout)
    assert (said["removed"], said["let_go"]) == (True, True)
    assert said["said"][-1] == "no pod of this node is captured any more"
    assert not agent.captured


def test_for_a_program_too_a_restart_is_no_removal(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    said = json.loads(uninstall(node, "--if-daemonset-gone", "a/b", "-o", "json").stdout)
    assert (said["removed"], said["let_go"], len(said["said"])) == (False, None, 1)
