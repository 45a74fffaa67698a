"""Pods' processes are found from their UIDs, whatever the cgroup driver calls directories, while pods come and go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ambient.capture import CaptureError, cgroups, find

UID = "0f5a8f5e-1111-4222-8333-944455556666"
STATIC = "3a5d5a7a3d1f4c5b8e9f0a1b2c3d4e5f"  # a static pod's: the hash of its file


def tree(root: Path, **processes: str) -> None:
    for name, text in processes.items():
        place(root, name, text)


def place(root: Path, name: str, text: str) -> None:
    where = root / name.replace("__", "/").replace("UNDER", UID.replace("-", "_")).replace("UID", UID)
    where.mkdir(parents=True, exist_ok=True)
    (where / "cgroup.procs").write_text(text)


def locate(root: Path, uid: str) -> int | None:
    return find.processes(root, [uid]).get(uid)


@pytest.mark.parametrize(
    "name",
    [
        "podUID",
        "kubepods__podUID__a1b2c3",
        "kubepods__burstable__podUID",
        "kubepods__besteffort__podUID__crio-a1b2c3",
        "kubepods.slice__kubepods-podUNDER.slice",
        "kubepods.slice__kubepods-burstable.slice__kubepods-burstable-podUNDER.slice__cri-containerd-a1.scope",
        "kubepods.slice__kubepods-besteffort.slice__kubepods-besteffort-podUNDER.slice__crio-a1.scope__container",
        "kubelet.slice__kubelet-kubepods.slice__kubelet-kubepods-burstable-podUNDER.slice",
        "kube-node1__kubepods__burstable__podUID__a1b2c3",
        "a__podUID__container",
    ],
    ids=["bare", "guaranteed", "burstable", "cri-o", "systemd", "containerd", "deep", "kind", "a root", "other"],
)
def test_the_oldest_process_below_the_pods_cgroup_is_found(tmp_path: Path, name: str) -> None:
    place(tmp_path, name, "812\n77\n")
    place(tmp_path, "kubepods__burstable__pod0f5a8f5e-9999-4222-8333-944455556666", "5\n")
    assert locate(tmp_path, UID) == 77


def test_all_pods_are_found_in_one_walk(tmp_path: Path) -> None:
    tree(tmp_path, kubepods__podUID__a="7\n", kubepods__podb__a="8\n", kubepods__podc__a="", other="9\n")
    place(tmp_path, f"kubepods__burstable__pod{STATIC}", "10\n")
    assert find.processes(tmp_path, [UID, STATIC, "b", "c", "d"]) == {UID: 7, STATIC: 10, "b": 8}
    assert find.processes(tmp_path, []) == {}


def test_a_pod_without_a_process_is_not_found(tmp_path: Path) -> None:
    tree(tmp_path, podUID="", podUID__made_but_empty="")
    assert locate(tmp_path, UID) is None


def test_a_uid_that_another_begins_or_ends_with_is_another(tmp_path: Path) -> None:
    tree(tmp_path, pod12="5\n", pod21="5\n", a1="7\n", kubepods="8\n")
    assert locate(tmp_path, "1") is None
    assert locate(tmp_path, "2") is None
    tree(tmp_path, pod1="6\n")
    assert locate(tmp_path, "1") == 6


def test_a_kubelet_inside_a_pod_has_pods_of_its_own(tmp_path: Path) -> None:
    tree(tmp_path, podouter="1\n", podouter__kubelet__kubepods__podinner__c="2\n")
    assert find.processes(tmp_path, ["outer"]) == {"outer": 1}
    assert find.processes(tmp_path, ["inner"]) == {"inner": 2}


def test_no_uid_finds_nobody(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without a UID"):
        find.processes(tmp_path, ["a", ""])


def test_pods_that_come_and_go_meanwhile_are_no_matter(tmp_path: Path) -> None:
    tree(tmp_path, zz__podUID__stays="42\n")
    over = threading.Event()

    def churn() -> None:
        number = 0
        while not over.is_set():
            number += 1
            name = tmp_path / f"pod{number % 7}" / "container"
            name.mkdir(parents=True, exist_ok=True)
            (name / "cgroup.procs").write_text("1\n")
            (name / "cgroup.procs").unlink()
            name.rmdir()
            name.parent.rmdir()

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for _ in range(300):
            assert locate(tmp_path, UID) == 42
    finally:
        over.set()
        churning.join()


@pytest.mark.kernel
def test_a_cgroup_that_is_removed_while_it_is_read_has_no_processes() -> None:
    cgroup = cgroups.root() / f"ambfind{os.getpid()}"
    inner = cgroup / f"pod{UID}"
    inner.mkdir(parents=True)
    try:
        with (inner / "cgroup.procs").open() as held:
            inner.rmdir()
            with pytest.raises(OSError, match="No such device"):
                held.read()
        assert cgroups.processes(inner) == []
        assert locate(cgroup, UID) is None
    finally:
        cgroup.rmdir()


def test_the_cgroup_root_is_found_in_the_mounts_even_with_a_blank_in_its_name() -> None:
    assert cgroups.root("x /a cgroup rw 0 0\nx /b\\040c cgroup2 rw 0 0\n") == Path("/b c")
    with pytest.raises(CaptureError, match="mount -t cgroup2"):
        cgroups.root("x /a cgroup rw 0 0\n")
