"""`ambient trace` with the real tracer: a connection over loopback, told in words."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import Result
from observe.worlds import a_pod, a_world

from ambient.observe import trace_needs

from .conftest import agents, handlers

Run = Callable[..., Result]
SERVER, CLIENT, ELSEWHERE = "127.77.0.2", "127.77.0.3", "127.77.0.4"
WORLD = a_world(a_pod("shop/web-1", SERVER), a_pod("shop/client-1", CLIENT), a_pod("shop/idle-1", "127.77.0.9"))


@pytest.fixture
def agent(places: Path) -> Iterator[Path]:
    with agents({places / "admin.sock": handlers(WORLD, "a")}):
        yield places / "admin.sock"


def traffic() -> None:
    """One good connection, one that is reset, one to nobody, and one that no watched pod has part in."""
    for address in (SERVER, ELSEWHERE):
        with ExitStack() as stack:
            server = stack.enter_context(socket.create_server((address, 0)))
            client = stack.enter_context(
                socket.create_connection(
                    server.getsockname(), source_address=(CLIENT if address == SERVER else address, 0)
                )
            )
            accepted, _ = server.accept()
            stack.callback(accepted.close)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((SERVER, 1), source_address=(CLIENT, 0))


def mounts() -> list[str]:
    """What this machine has mounted where the tracer mounts things; elsewhere others come and go."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[1].startswith(("/sys/kernel", "/lib/modules", "/usr/lib/modules"))]


@pytest.mark.kernel
def test_a_connection_a_reset_and_a_refusal_are_told_in_words(agent: Path) -> None:
    before = mounts()
    command = [sys.executable, "-m", "ambient", "trace", "--socket", str(agent), "-o", "json", "--for", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        first = tracer.stderr.readline()
        assert first.startswith("Watching "), first + tracer.stderr.read()
        traffic()
        out, errors = tracer.communicate(timeout=30)
    assert (tracer.returncode, errors) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    texts = "\n".join(event["text"] for event in events)
    assert "shop/client-1 (127.77.0.3:" in texts
    for part in (
        "is connected to shop/web-1 (127.77.0.2:",
        "accepts shop/client-1 (127.77.0.3:",
        "got a reset from shop/client-1",
        "could not connect to shop/web-1 (127.77.0.2:1): gave up after",
    ):
        assert part in texts
    assert ELSEWHERE not in out
    assert mounts() == before, "what it mounts is its own"


@pytest.mark.kernel
def test_one_pod_can_be_watched_alone(agent: Path) -> None:
    command = [sys.executable, "-m", "ambient", "trace", "--pod", "shop/idle-1", "--socket", str(agent), "--for", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert tracer.stderr.readline() == "Watching shop/idle-1; Ctrl-C ends it.\n"
        traffic()
        out, _ = tracer.communicate(timeout=30)
    assert (tracer.returncode, out) == (0, "")


def test_what_is_missing_is_named_with_its_package(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trace_needs, "PYTHON", str(tmp_path / "python3"))
    monkeypatch.setattr(trace_needs, "MODULES", tmp_path)
    monkeypatch.setattr(trace_needs, "SOURCES", tmp_path)
    result = run("trace")
    assert result.exit_code == 4
    assert "apt-get install python3-bpfcc" in result.stderr
    assert f"apt-get install linux-headers-{os.uname().release}" in result.stderr


def test_headers_of_another_kernel_will_do_and_the_newest_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trace_needs, "MODULES", tmp_path)
    monkeypatch.setattr(trace_needs, "SOURCES", tmp_path)
    for version in ("6.1.0-9", "6.1.0-56"):
        for kind in ("common", "amd64", "rt-amd64"):
            (tmp_path / f"linux-headers-{version}-{kind}").mkdir()
    found = trace_needs.headers()
    assert found is not None
    assert found["build"].endswith("linux-headers-6.1.0-56-amd64")
    assert found["source"].endswith("linux-headers-6.1.0-56-common")


def test_the_running_kernels_own_headers_need_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trace_needs, "MODULES", tmp_path)
    (tmp_path / os.uname().release / "build" / "include").mkdir(parents=True)
    assert trace_needs.headers() is None


def test_a_pod_that_is_not_there_cannot_be_watched(run: Run, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_needs, "missing", list)
    result = run("trace", "--pod", "shop/none", "--socket", agent)
    assert result.exit_code == 1
    assert "there is no pod shop/none" in result.stderr
