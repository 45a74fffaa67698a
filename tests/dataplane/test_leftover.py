"""An engine that nobody is there for any more is ended by whose socket it is; nobody else is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.dataplane import leftover
from ambient.dataplane.process import EngineFailed

# Stands for an engine: listens as one does, and is called as one is.
ENGINE = """
import signal, socket, sys
for number in sys.argv[2:]:
    signal.signal(int(number), signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
    door.bind(sys.argv[1])
    door.listen(8)
    print("listening", flush=True)
    while True:
        door.accept()[0].close()
"""


@contextlib.contextmanager
def engine(run_dir: Path, name: str = "engine-1", *ignores: signal.Signals) -> Iterator[subprocess.Popen[str]]:
    run_dir.mkdir(exist_ok=True)
    words = ["ambient-engine", "-c", ENGINE, str(run_dir / f"{name}.0.sock"), *(str(int(each)) for each in ignores)]
    with subprocess.Popen(words, executable=sys.executable, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        try:
            yield process
        finally:
            process.kill()


def test_it_is_ended_and_its_sockets_are_removed(tmp_path: Path) -> None:
    with engine(tmp_path) as process:
        (tmp_path / "engine-1.1.sock").touch()
        assert leftover.end(tmp_path) == [process.pid]
        assert process.wait(1) == -signal.SIGINT, "SIGTERM would have asked it to wait for a successor"
    assert list(tmp_path.iterdir()) == []
    assert leftover.end(tmp_path) == []


def test_those_that_it_replaced_are_ended_too(tmp_path: Path) -> None:
    with engine(tmp_path, "engine-1") as old, engine(tmp_path, "engine-2") as young:
        assert leftover.end(tmp_path) == [old.pid, young.pid]


def test_another_agents_engine_goes_on(tmp_path: Path) -> None:
    """It is called the same, on the same machine."""
    with engine(tmp_path / "ours") as ours, engine(tmp_path / "theirs") as theirs:
        assert leftover.end(tmp_path / "ours") == [ours.pid]
        assert theirs.poll() is None
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(tmp_path / "theirs" / "engine-1.0.sock"))


def test_one_that_hears_nothing_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftover, "GONE_S", 0.2)
    with engine(tmp_path, "engine-1", signal.SIGINT) as process:
        assert leftover.end(tmp_path) == [process.pid]
        assert process.wait(1) == -signal.SIGKILL


def test_one_that_is_stopped_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftover, "GONE_S", 0.2)
    with engine(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        assert leftover.end(tmp_path) == [process.pid]


def test_a_dead_engines_socket_is_removed(tmp_path: Path) -> None:
    with engine(tmp_path):
        pass
    assert leftover.end(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_one_whose_pid_means_nothing_here_is_left_alone_and_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "getsockopt", lambda *_: bytes(12))
    with engine(tmp_path) as process:
        with pytest.raises(EngineFailed, match="is in another pid namespace: run this on its node"):
            leftover.end(tmp_path)
        assert process.poll() is None


def test_a_number_that_is_anothers_by_now_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the signal the engine ended, and its number was given again."""
    found = iter([os.getpid(), 0])
    monkeypatch.setattr(leftover, "_listener", lambda _: next(found))
    (tmp_path / "engine-1.0.sock").touch()
    assert leftover.end(tmp_path) == []


def test_only_a_cgroup_that_an_agent_made_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stays in (("ambient-engine", False), ("engine", False), ("cri-containerd-1.scope", True)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(leftover, "_cgroup", lambda *_, name=name: tmp_path / name)
        with engine(tmp_path / "run"):
            leftover.end(tmp_path / "run", tmp_path)
        assert (tmp_path / name).exists() is stays
