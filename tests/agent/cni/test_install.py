"""Whatever happens to the installer, a runtime finds a whole configuration, and a program for each plugin in it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ambient.agent.cni import conflist, install
from ambient.agent.cni.conflist import OWN
from ambient.agent.cni.install import Installer

NODES_OWN = '{"cniVersion": "1.0.0", "name": "pods",\n "plugins": [{"type": "bridge"}]}\n'
CHANGED = NODES_OWN.replace("bridge", "ptp")
STEPS = ("mkstemp", "fsync", "fchmod", "rename", "unlink")


class Place:
    """A node's directories, and what a runtime would make of them."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.conf, self.run, self.program = (folder / name for name in ("bin", "conf", "run", "program"))
        for each in (self.bin, self.conf, self.run):
            each.mkdir()
        self.program.write_bytes(b"#!/bin/true\n")
        self.clock = 0.0

    def installer(self) -> Installer:
        return Installer(self.bin, self.conf, self.run, ["kube-system"], program=self.program, clock=lambda: self.clock)

    def chosen(self) -> list[str]:
        """The types of the plugins that a runtime would call; it would fail on a file it cannot read."""
        names = sorted(path.name for path in self.conf.iterdir() if path.name.endswith(conflist.EXTENSIONS))
        bodies = [json.loads((self.conf / name).read_text()) for name in names]
        types = [plugin["type"] for plugin in bodies[0]["plugins"]] if bodies else []
        if conflist.TYPE in types:
            program = self.bin / conflist.TYPE
            assert program.read_bytes() == self.program.read_bytes()
            assert os.access(program, os.X_OK)
        return types

    def everything(self) -> set[str]:
        return {path.name for folder in (self.bin, self.conf) for path in folder.iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    (made.conf / "10-node.conflist").write_text(NODES_OWN)
    return made


def test_it_is_chained_behind_what_the_node_has_which_stays_as_it_is(place: Place) -> None:
    installer = place.installer()
    installer.install()
    assert (installer.problem, place.chosen()) == ("", ["bridge", "ambient-cni"])
    assert (place.conf / "10-node.conflist").read_text() == NODES_OWN
    plugin = json.loads((place.conf / OWN).read_text())["plugins"][1]
    assert plugin == {"type": "ambient-cni", "runDir": str(place.run), "exempt": "kube-system"}


def test_where_kubelet_keeps_agents_is_said_if_it_is_known(place: Place) -> None:
    install.Installer(place.bin, place.conf, place.run, [], "/logs/ns_agent-", program=place.program).install()
    assert json.loads((place.conf / OWN).read_text())["plugins"][1]["agents"] == "/logs/ns_agent-"
    modes = [path.stat().st_mode & 0o777 for path in (place.bin / "ambient-cni", place.conf / OWN)]
    assert modes == [0o755, 0o644]


def test_doing_it_twice_writes_nothing(place: Place) -> None:
    place.installer().install()
    before = {path: path.stat().st_ino for folder in (place.bin, place.conf) for path in folder.iterdir()}
    place.installer().install()
    assert {path: path.stat().st_ino for path in before} == before


def test_what_the_nodes_cni_writes_anew_is_followed(place: Place) -> None:
    installer = place.installer()
    installer.install()
    (place.conf / "10-node.conflist").write_text(CHANGED)
    assert place.chosen() == ["bridge", "ambient-cni"], "until then the copy holds"
    installer.install()
    assert place.chosen() == ["ptp", "ambient-cni"]


def test_what_somebody_took_away_comes_back(place: Place) -> None:
    installer = place.installer()
    installer.install()
    (place.bin / "ambient-cni").write_bytes(b"another")
    (place.conf / OWN).unlink()
    installer.install()
    assert place.chosen() == ["bridge", "ambient-cni"]


def test_a_single_plugins_file_is_chained_too(place: Place) -> None:
    (place.conf / "05-first.conf").write_text('{"cniVersion": "0.4.0", "name": "n", "type": "macvlan"}')
    place.installer().install()
    assert place.chosen() == ["macvlan", "ambient-cni"]


def test_a_file_that_is_no_configuration_is_passed_over(place: Place) -> None:
    (place.conf / "05-broken.conflist").write_text("{")
    installer = place.installer()
    installer.install()
    assert (installer.problem, json.loads((place.conf / OWN).read_text())["plugins"][0]) == ("", {"type": "bridge"})


def test_without_a_configuration_there_is_nothing_to_chain_and_it_says_so(place: Place) -> None:
    (place.conf / "10-node.conflist").write_text('{"cniVersion": "0.2.0", "name": "n", "plugins": [{"type": "x"}]}')
    installer = place.installer()
    installer.install()
    assert "10-node.conflist is of CNI version 0.2.0" in installer.problem
    (place.conf / "10-node.conflist").unlink()
    installer.install()
    assert "has no network configuration yet" in installer.problem
    assert not (place.conf / OWN).exists()


def test_a_node_whose_cni_writes_by_removing_first_has_no_gap_and_one_without_a_cni_gets_none(place: Place) -> None:
    installer = place.installer()
    installer.install()
    (place.conf / "10-node.conflist").unlink()
    installer.install()
    assert place.chosen() == ["bridge", "ambient-cni"], "it may be written again in a moment"
    (place.conf / "10-node.conflist").write_text(CHANGED)
    installer.install()
    (place.conf / "10-node.conflist").unlink()
    installer.install()
    place.clock += install.GONE_S
    installer.install()
    assert place.chosen() == []


def test_what_cannot_be_written_is_a_problem_not_an_end(place: Place) -> None:
    installer = Installer(place.bin / "nowhere", place.conf, place.run, [], program=place.program)
    installer.install()
    assert "cannot be installed" in installer.problem
    assert place.chosen() == ["bridge"], "no configuration before its program"


def test_uninstalling_leaves_the_node_as_it_was_and_an_agent_that_still_runs_leaves_it_so(place: Place) -> None:
    installer = place.installer()
    installer.install()
    install.uninstall(place.bin, place.conf, place.run)
    installer.install()
    assert place.everything() == {"10-node.conflist"}
    assert (place.conf / "10-node.conflist").read_text() == NODES_OWN
    assert "removed" in installer.problem
    assert (place.run / "uninstalled").exists(), "a runtime that still calls the plugin is let pass"


def test_uninstalling_what_is_not_there_is_no_error(place: Place, tmp_path: Path) -> None:
    install.uninstall(place.bin, place.conf, tmp_path / "nowhere")
    install.uninstall(tmp_path / "nowhere", tmp_path / "nowhere", place.run)
    assert place.everything() == {"10-node.conflist"}


def test_a_running_installer_follows_the_directories(place: Place) -> None:
    async def scene() -> None:
        running = asyncio.create_task(place.installer().run())
        try:
            async with asyncio.timeout(10):
                await until(lambda: place.chosen() == ["bridge", "ambient-cni"])
                (place.conf / "10-node.conflist").write_text(CHANGED)
                await until(lambda: place.chosen() == ["ptp", "ambient-cni"])
                (place.bin / "ambient-cni").unlink()
                await until(lambda: (place.bin / "ambient-cni").exists())
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())


async def until(holds: Callable[[], bool]) -> None:
    """The file system's watcher is another's: there is no event of ours to wait for."""
    while not holds():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.01)


# Killed in the middle


def dies_at(step: int, work: Callable[[], object]) -> bool:
    """Do it in a process that is killed before this system call that changes files; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            _kill_before(step)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _kill_before(step: int) -> None:
    import tempfile

    left = iter(range(step))

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **more)

        return call

    for name in STEPS:
        module = tempfile if name == "mkstemp" else os
        setattr(module, name, deadly(getattr(module, name)))


@pytest.mark.parametrize("step", range(9))
def test_an_installer_that_is_killed_leaves_what_was_or_what_is_to_be(place: Place, step: int) -> None:
    killed = dies_at(step, lambda: place.installer().install())
    assert killed == (step < 8), "every step was tried, and there are no more"
    assert place.chosen() in (["bridge"], ["bridge", "ambient-cni"])
    place.installer().install()
    assert place.chosen() == ["bridge", "ambient-cni"]
    assert place.everything() == {"10-node.conflist", OWN, "ambient-cni"}


@pytest.mark.parametrize("step", range(5))
def test_an_update_that_is_killed_leaves_the_old_or_the_new(place: Place, step: int) -> None:
    place.installer().install()
    (place.conf / "10-node.conflist").write_text(CHANGED)
    killed = dies_at(step, lambda: place.installer().install())
    assert killed == (step < 4)
    assert place.chosen() in (["bridge", "ambient-cni"], ["ptp", "ambient-cni"])
    place.installer().install()
    assert place.chosen() == ["ptp", "ambient-cni"]


@pytest.mark.parametrize("step", range(7))
def test_an_uninstall_that_is_killed_leaves_a_plugin_that_lets_everything_pass(place: Place, step: int) -> None:
    place.installer().install()
    killed = dies_at(step, lambda: install.uninstall(place.bin, place.conf, place.run))
    assert killed == (step < 6)
    if place.chosen() != ["bridge", "ambient-cni"]:
        assert (place.run / "uninstalled").exists()
        assert place.chosen() == ["bridge"]
    install.uninstall(place.bin, place.conf, place.run)
    assert place.everything() == {"10-node.conflist"}
