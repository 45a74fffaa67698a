"""`down` leaves nothing behind and touches nothing else, whoever died before; labs stand side by side."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient import config
from ambient.lab import Environment, Gone, Lab, LabError, NotReady, Refused
from tests.lab.builders import a_namespace, a_node, a_pod
from tests.lab.test_lab import FAKE_AGENT
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

AMBIENT = [sys.executable, "-m", "ambient"]
MANIFESTS = [a_node("node1"), a_node("node2"), a_namespace("shop"), a_pod("web"), a_pod("client")]


def traces(name: str) -> list[str]:
    """Everything of a lab that is still there."""
    cgroup = config.cgroup2_root() / f"ambient-lab-{name}"
    found = [str(path) for path in Path("/run/netns").glob(f"amb-{name}-*")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"/lab/{name}/" in line]
    found += [str(path) for path in (cgroup, Path("/run/ambient/lab") / name) if path.exists()]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"/ambient/lab/{name}/".encode() in process.read_bytes():
                found.append(str(process))
        except OSError:
            continue
    return found


NEVER = a_pod(
    "never",
    command=["sh", "-c", "echo warming up; sleep infinity"],
    container={"readinessProbe": {"exec": {"command": ["false"]}}},
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab("downtest") as lab:
        lab.up(MANIFESTS, agent=FAKE_AGENT)
        yield lab
    assert not traces("downtest")


def cgroup_pids(lab: Lab, part: str) -> list[int]:
    return [int(pid) for pid in (lab.layout.cgroup / part / "cgroup.procs").read_text().split()]


@pytest.mark.parametrize(
    "parts",
    [[], ["DAEMON"], ["node1/agent"], ["node1/agent/engine"], ["DAEMON", "node1/agent", "node2/agent/engine"]],
    ids=["nobody", "the daemon", "an agent", "an engine", "several"],
)
def test_nothing_is_left_after_the_death_of(lab: Lab, parts: list[str]) -> None:
    for part in parts:
        for pid in cgroup_pids(lab, part):
            os.kill(pid, signal.SIGKILL)
    assert lab.down()
    assert not traces("downtest")
    assert not lab.down()


def test_a_pods_own_children_end_too_whatever_session_they_made(lab: Lab) -> None:
    stray = lab.popen("shop/web", ["setsid", "sh", "-c", "trap '' TERM HUP INT; exec sleep infinity"])
    lab.down()
    assert stray.wait(5) == -signal.SIGKILL


def test_without_its_daemon_a_lab_says_so_and_what_to_do(lab: Lab) -> None:
    for pid in cgroup_pids(lab, "DAEMON"):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(Gone, match="ambient lab down --lab downtest"):
        lab.status()


def test_a_second_up_is_refused_and_changes_nothing(lab: Lab) -> None:
    before = lab.status()
    with pytest.raises(LabError, match="exists"):
        Lab("downtest").up(MANIFESTS)
    assert lab.status() == before


def test_labs_with_the_same_names_and_addresses_stand_side_by_side(lab: Lab) -> None:
    with Lab("downother") as other:
        other.up(MANIFESTS, agent=FAKE_AGENT)
        ours, theirs = lab.pod("shop/web"), other.pod("shop/web")
        assert ours["ips"] == theirs["ips"]
        assert lab.pod_netns("shop/web").stat().st_ino != other.pod_netns("shop/web").stat().st_ino
        lab.down()
        assert not traces("downtest")
        assert other.status()["pods"]["shop/web"]["ready"]
        other.exec("shop/client", "true")
    assert not traces("downother")


def test_a_netns_of_somebody_else_stops_up_and_survives_it() -> None:
    subprocess.run(["ip", "netns", "add", "amb-downtest-node2"], check=True)
    try:
        with pytest.raises(Environment, match="amb-downtest-node2 exists and is not this lab's"):
            Lab("downtest").up(MANIFESTS, agent=FAKE_AGENT)
        assert traces("downtest") == ["/run/netns/amb-downtest-node2"]
    finally:
        subprocess.run(["ip", "netns", "del", "amb-downtest-node2"], check=True)


def test_refused_manifests_leave_no_lab() -> None:
    with pytest.raises(Refused, match="a node, but there is none"):
        Lab("downtest").up([a_namespace("shop"), a_pod("web")], agent=FAKE_AGENT)
    assert not traces("downtest")


def test_an_up_that_does_not_get_ready_says_why_and_leaves_nothing() -> None:
    with pytest.raises(NotReady) as caught:
        Lab("downtest").up([*MANIFESTS, NEVER], agent=FAKE_AGENT, timeout=1)
    assert "pod shop/never is not ready: main: its readiness probe failed" in str(caught.value)
    assert "warming up" in str(caught.value)
    assert not traces("downtest")


def test_an_up_that_does_not_get_ready_stays_where_that_was_asked_for() -> None:
    with Lab("downtest") as lab:
        with pytest.raises(NotReady):
            lab.up([*MANIFESTS, NEVER], agent=FAKE_AGENT, timeout=1, keep=True)
        assert lab.pod("shop/web")["ready"]
        assert not lab.pod("shop/never")["ready"]
    assert not traces("downtest")


@pytest.mark.parametrize("keep", [[], ["--keep"]], ids=["", "kept"])
def test_a_failed_ups_error_says_what_was_left(keep: list[str], tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [*MANIFESTS, NEVER]}))
    words = ["--no-mesh", "--timeout", "0.5", "--lab", "downtest", "-f", str(tmp_path), *keep]
    done = subprocess.run([*AMBIENT, "lab", "up", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert ("ambient lab down --lab downtest" if keep else "Nothing was left of it") in done.stderr
    assert Lab("downtest").down() is bool(keep)
    assert not traces("downtest")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [*MANIFESTS, NEVER]}))
    words = ["--no-mesh", "--lab", "downtest", "-f", str(tmp_path)]
    heard = functools.partial(signal.signal, number, signal.SIG_DFL)  # though we may be in somebody's background
    command = [*AMBIENT, "lab", "up", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as up:
        log = Lab("downtest").layout.pod_log("shop/never")
        eventually(lambda: log.exists() and "warming up" in log.read_text())
        up.send_signal(number)
        up.send_signal(number)  # an impatient user: what was begun is undone whole
        _, said = up.communicate(timeout=20)
    assert (up.returncode, said) == (128 + number, "interrupted: nothing was left of it\n")
    assert not traces("downtest")
