"""What the engine can no longer do once it serves: no privileges, no files, no system calls but those it needs."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
from collections.abc import Iterator

import pytest

from . import apps, harness, process, ptrace, verdicts

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(process.sanitized(), reason="a sanitizer needs what the sandbox takes: these builds have none"),
]

NOBODY = 65534
FORBIDDEN_BY = {-errno.EPERM, -errno.EACCES, -errno.ENOSYS}

# Number and name of what a captured engine would reach for; arguments are zeros, so that what is let through fails
# with EFAULT, EBADF or EINVAL and does nothing.
FORBIDDEN = {
    "open": 2,
    "openat": 257,
    "socket": 41,
    "socketpair": 53,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "execveat": 322,
    "kill": 62,
    "ptrace": 101,
    "setuid": 105,
    "chroot": 161,
    "mount": 165,
    "unlink": 87,
    "mkdir": 83,
    "init_module": 175,
    "unshare": 272,
    "setns": 308,
    "open_by_handle_at": 304,
    "process_vm_readv": 310,
    "perf_event_open": 298,
    "io_uring_setup": 425,
    "pidfd_getfd": 438,
    "keyctl": 250,
}


@pytest.fixture
def engine(tmp_path: pathlib.Path) -> Iterator[process.Engine]:
    running = process.Engine(tmp_path / "run", threads=2)
    yield running
    running.kill()


def test_every_thread_is_nobody_without_any_capability(engine: process.Engine) -> None:
    tasks = list(engine.proc("task").iterdir())
    assert len(tasks) >= 2
    for task in tasks:
        lines = (task / "status").read_text().splitlines()
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert {int(uid) for uid in status["Uid"].split()} == {NOBODY}
        assert {int(gid) for gid in status["Gid"].split()} == {NOBODY}
        assert status["Groups"].split() in ([], [str(NOBODY)])


def test_its_file_system_is_empty(engine: process.Engine) -> None:
    assert os.listdir(engine.proc("root")) == []
    assert os.listdir(engine.proc("cwd")) == []


def test_it_holds_no_file_but_sockets_and_its_own_machinery(engine: process.Engine) -> None:
    """Nothing through which the host's files could be reached, nor a terminal to be typed into."""
    targets = [os.readlink(fd) for fd in engine.proc("fd").iterdir()]
    unexpected = [
        target
        for target in targets
        if not target.startswith(("socket:", "anon_inode:", "/dev/null")) and not target.endswith("stderr.txt")
    ]
    # what it was started with, to report by: the test's own stdout
    assert all(target.startswith(("pipe:", "/dev/", "/tmp/")) for target in unexpected), unexpected


def test_it_lives_in_a_session_of_its_own(engine: process.Engine) -> None:
    assert os.getsid(engine.pid) != os.getsid(0)


def test_its_sockets_are_its_owners_alone(engine: process.Engine) -> None:
    for worker in range(2):
        path = process.door(engine.run_dir, worker)
        assert path.stat().st_mode & 0o077 == 0
        assert path.stat().st_uid == 0, "whoever may write the socket of an agent is the agent"


@pytest.mark.skipif(not ptrace.supported(), reason="system calls can be injected on x86-64 only")
@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_system_call_it_does_not_need_is_forbidden(engine: process.Engine, name: str) -> None:
    try:
        result = ptrace.call(engine.pid, FORBIDDEN[name])
    except ptrace.Killed:
        return
    if result > 0 and name in ("fork", "vfork"):
        os.kill(result, signal.SIGKILL)  # it exists, which it should not
    assert result in FORBIDDEN_BY, f"{name} was let through: {result}"


@pytest.mark.skipif(not ptrace.supported(), reason="system calls can be injected on x86-64 only")
def test_a_system_call_it_needs_is_let_through(engine: process.Engine) -> None:
    """The instrument itself: what is forbidden above would be seen if it were not."""
    assert ptrace.call(engine.pid, 3, 1 << 20) == -errno.EBADF  # close


def test_after_all_that_it_still_serves(far: harness.Node) -> None:
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        client.sendall(b"hello")
        assert apps.read_exactly(client, 5) == b"hello"
