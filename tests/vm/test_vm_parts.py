"""hack/vm without a virtual machine: which kernel, which tests, who runs them, what came out, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hack.vm import VmError, kernel, lane, layout, machine, results, selection, share

KERNEL = kernel.Kernel("6.1.0-1-amd64", Path("/no/vmlinuz"), Path("/no/modules"))
DEADLINE_S = 10.0


def test_the_newest_kernel_is_taken_and_no_variant_of_it() -> None:
    names = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-57-amd64\nlinux-image-6.1.0-58-rt-amd64\nlinux-image-amd64\n"
    assert kernel.newest(names) == "linux-image-6.1.0-57-amd64"


def test_where_apt_has_no_such_kernel_it_says_what_to_do() -> None:
    with pytest.raises(VmError, match="apt-get update"):
        kernel.newest("linux-image-6.12.1-amd64\n")


def test_every_line_of_the_list_has_its_reason() -> None:
    assert selection.parse("# head\n\nlane/a.py  # because\nlane/b.py::c # also\n") == {
        "lane/a.py": "because",
        "lane/b.py::c": "also",
    }
    for bad in ("lane/a.py", "lane/a.py #", "lane/a.py # x\nlane/a.py # y"):
        with pytest.raises(VmError, match="line"):
            selection.parse(bad)


def test_the_list_names_tests_of_the_kernel_lane_that_there_are() -> None:
    """As the lane asks pytest, which knows the names of a test's variants."""
    listed = selection.chosen(everything=False, tests=())
    command = [*lane.PYTEST, "--collect-only", "-q", *listed]
    done = subprocess.run(command, cwd=layout.REPOSITORY, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "deselected" not in done.stdout, "of the plain lane"
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(set(found)) == len(found) >= len(listed)


def test_named_tests_take_the_lists_place() -> None:
    assert selection.chosen(everything=False, tests=("lane/x.py",)) == ("lane/x.py",)
    assert selection.chosen(everything=True, tests=()) == selection.EVERYTHING
    with pytest.raises(VmError, match="either"):
        selection.chosen(everything=True, tests=("lane/x.py",))


def test_a_file_is_one_machines(tmp_path: Path) -> None:
    one, other = share.Share(tmp_path), share.Share(tmp_path)
    assert one.is_ours("lane/a.py")
    assert not other.is_ours("lane/a.py")
    assert other.is_ours("lane/b/a.py")
    assert (one.is_ours("lane/a.py"), other.is_ours("lane/a.py")) == (True, False), "and stays so"


def test_two_machines_run_everything_once(tmp_path: Path) -> None:
    """Both as pytest has them, one after the other: what the first took is not run again."""
    for name in ("one", "two"):
        (tmp_path / f"test_{name}.py").write_text("def test_it(): pass\n")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "test_one.py").mkdir()  # another machine's
    environment = {**os.environ, share.CLAIMS: str(tmp_path / "claims"), "PYTHONPATH": str(layout.REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", share.__name__, "-v", "--junitxml=junit"]
    for expected in ("test_two.py::test_it",), ():
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        assert tuple(results.merged([(tmp_path / "junit").read_text()]).passed) == expected


def test_what_is_kept_for_a_file_of_another_machine_is_in_nobodys_way(tmp_path: Path) -> None:
    """pytest takes down after a test what the next one does not need, and the next may be somebody else's."""
    deep = tmp_path / "deep"
    files = [deep / "test_ours.py", deep / "test_theirs.py", tmp_path / "test_ours_too.py"]
    (tmp_path / "claims" / "deep+test_theirs.py").mkdir(parents=True)
    deep.mkdir()
    for file in files:
        file.write_text("def test_it(): pass\n")
    environment = {**os.environ, share.CLAIMS: str(tmp_path / "claims"), "PYTHONPATH": str(layout.REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", share.__name__, *map(str, files)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_a_failure_is_told_at_once_and_when_the_time_is_up_no_test_is_begun(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    claims.mkdir()
    bad = f"def test_bad():\n    open('{claims}/{share.STOP}', 'w').close()\n    assert 'why' == ''\n"
    (tmp_path / "test_one.py").write_text(bad + "def test_never(): pass\n")
    environment = {**os.environ, share.CLAIMS: str(claims), "PYTHONPATH": str(layout.REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", share.__name__, "-v", "--junitxml=junit"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True).stdout
    assert said.index("assert 'why' == ''") < said.index("= FAILURES =")
    found = results.merged([(tmp_path / "junit").read_text()])
    assert (found.passed, set(found.failed)) == ({}, {"test_one.py::test_bad"})


def test_reports_are_added_up_and_a_skipped_test_is_no_passed_one() -> None:
    one = '<testsuites><testsuite><testcase classname="lane.a" name="x" time="1.5"/></testsuite></testsuites>'
    two = '<testsuite><testcase classname="lane.b" name="y"><failure/></testcase>'
    two += '<testcase classname="lane.b" name="z"><skipped/></testcase></testsuite>'
    found = results.merged([one, two])
    assert found.passed == {"lane/a.py::x": 1.5}
    assert set(found.failed) == {"lane/b.py::y", "lane/b.py::z"}
    assert found.ran == 3


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> machine.Machine:
    """A machine whose emulator is a shell with a child that would never end."""
    script = f"echo booting; echo hello >{tmp_path}/1/output; sleep 1000 & echo $! >{tmp_path}/pid; wait"
    monkeypatch.setattr(machine, "_vng", lambda *_: ["sh", "-c", script])
    return machine.Machine(KERNEL, tmp_path, "1")


def test_a_long_list_of_tests_does_not_lengthen_the_kernels_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after 2,047 bytes, and with what is cut off goes what the machine starts by: it hangs without a word."""
    monkeypatch.setattr(machine, "_vng", lambda *_: ["sh", "-c", f'printf %s "$*" >{tmp_path}/told', "sh"])
    starting, words = machine.Machine(KERNEL, tmp_path, "1"), ["a test", "another"] * 500
    with machine.ended([starting]):
        starting.start(words, {"NAME": "some value"})
        while starting.running():
            time.sleep(0.01)
    assert len((tmp_path / "told").read_text()) < 500
    read = "mapfile -t -d '' program <\"$0\" && printf '%s,' \"${program[@]}\""  # as guest.sh does
    done = subprocess.run(["bash", "-c", read, tmp_path / "1/program"], check=True, capture_output=True, text=True)
    assert done.stdout.split(",")[:-1] == ["env", "NAME=some value", *words]


def child(directory: Path) -> int:
    """The pid that the pretended machine's child wrote down."""
    deadline = time.monotonic() + DEADLINE_S
    while not ((directory / "pid").exists() and (text := (directory / "pid").read_text().strip())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(text)


def is_dead(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_nothing_is_left_of_a_machine_whatever_happens(tmp_path: Path, pretended: machine.Machine) -> None:
    def terminated() -> None:
        with machine.ended([pretended]):
            pretended.start(["true"], {})
            assert not is_dead(child(tmp_path))
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        terminated()
    assert is_dead(child(tmp_path))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_machine_that_ends_too_early_shows_its_console(tmp_path: Path, pretended: machine.Machine) -> None:
    with machine.ended([pretended]):
        pretended.start(["true"], {})
        child(tmp_path)
    assert pretended.new_output() == ["hello"]
    with pytest.raises(VmError, match="booting"):
        pretended.status()


def test_what_a_machine_says_is_there_while_it_hangs(tmp_path: Path, pretended: machine.Machine) -> None:
    console, deadline = tmp_path / "1/console", time.monotonic() + DEADLINE_S
    with machine.ended([pretended]):
        pretended.start(["true"], {})
        while not (console.exists() and console.read_text() == "booting\n"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert pretended.running()


def test_a_machine_in_which_pytest_never_ran_is_named(tmp_path: Path) -> None:
    """What goes wrong before it may end with the same status as tests that failed."""
    unlucky = machine.Machine(KERNEL, tmp_path, "1")
    unlucky.directory.mkdir()
    (unlucky.directory / "status").write_text("1\n")
    with pytest.raises(VmError, match="machines 1: what it said is above"):
        lane._judge({"1": unlucky}, expected=1)
