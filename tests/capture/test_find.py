"""A pod's process is found from its UID, whatever the cgroup driver calls the directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.capture import CaptureError, cgroups, find

UID = "0f5a8f5e-1111-4222-8333-944455556666"


def tree(root: Path, **processes: str) -> None:
    for name, text in processes.items():
        place = root / name.replace("__", "/").replace("UNDER", UID.replace("-", "_")).replace("UID", UID)
        place.mkdir(parents=True, exist_ok=True)
        (place / "cgroup.procs").write_text(text)


@pytest.mark.parametrize(
    "name",
    [
        "podUID",
        "kubepods__burstable__podUID",
        "kubepods.slice__kubepods-pod" + "UNDER.slice",
        "a__podUID__container",
    ],
)
def test_the_oldest_process_below_the_pods_cgroup_is_found(tmp_path: Path, name: str) -> None:
    tree(tmp_path, **{name: "812\n77\n"})
    assert find.locate(tmp_path, UID) == 77


def test_a_pod_without_a_process_is_not_found(tmp_path: Path) -> None:
    tree(tmp_path, podUID="")
    assert find.locate(tmp_path, UID) is None


def test_a_uid_that_another_begins_with_is_another(tmp_path: Path) -> None:
    tree(tmp_path, pod12="5\n", xpod1="6\n", a1="7\n")
    assert find.locate(tmp_path, "1") == 6
    assert find.locate(tmp_path, "2") is None


def test_no_uid_finds_nobody(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without a UID"):
        find.locate(tmp_path, "")


def test_the_cgroup_root_is_found_in_the_mounts_even_with_a_blank_in_its_name() -> None:
    assert cgroups.root("x /a cgroup rw 0 0\nx /b\\040c cgroup2 rw 0 0\n") == Path("/b c")
    with pytest.raises(CaptureError, match="mount -t cgroup2"):
        cgroups.root("x /a cgroup rw 0 0\n")
