"""`ambient check`'s facts: each finding says what is and how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.capture import Capture, check, pins

from . import pods

ROOT_STATUS = "Name:\tpython\nCapEff:\t000001ffffffffff\n"


@pytest.mark.parametrize(
    ("release", "ok"),
    [
        ("6.18.44", True),
        ("6.1.0-57-amd64", True),
        ("10.1.0-rc1", True),
        ("6.0.9", False),
        ("5.19.0", False),
        ("what", False),
    ],
)
def test_the_kernel_must_be_new_enough(release: str, ok: bool) -> None:
    found = check.kernel(release)
    assert (found.ok, bool(found.fix)) == (ok, not ok)


def test_missing_capabilities_are_named() -> None:
    assert check.capabilities(ROOT_STATUS).ok
    assert check.capabilities("CapEff:\t0000000000201000\n").found == "missing CAP_SYS_PTRACE"
    assert check.capabilities("CapEff:\t0000000000000000\n").fix.startswith("run as root")


def test_a_node_without_cgroup_v2_gets_the_mount_command() -> None:
    assert "mount -t cgroup2" in check.cgroup2("tmpfs /tmp tmpfs rw 0 0\n").fix
    assert check.cgroup2("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").found == "mounted at /sys/fs/cgroup"


@pytest.mark.parametrize("there", [True, False])
def test_a_place_that_is_no_bpf_file_system_gets_the_mount_command(tmp_path: Path, there: bool) -> None:
    place = tmp_path if there else tmp_path / "none"
    assert f"mount -t bpf bpf {place}" in check.bpf_file_system(place).fix


def test_another_versions_pins_are_named(tmp_path: Path) -> None:
    (tmp_path / "ambient-v99").mkdir()
    (tmp_path / "ambient-v1").mkdir()
    assert [each.found for each in check.other_versions(tmp_path)] == [
        f"{tmp_path}/ambient-v99 belongs to another version"
    ]


@pytest.mark.parametrize(("value", "ok"), [("0", False), ("1", True), ("2", True)])
def test_ebpf_for_everyone_is_advised_against(tmp_path: Path, value: str, ok: bool) -> None:
    setting = tmp_path / "setting"
    setting.write_text(value + "\n")
    assert check.unprivileged(setting).ok is ok


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cil_sock4_connect", "Cilium"),
        ("sock6_connect", "Cilium"),
        ("calico_connect", "Calico"),
        ("cali_ctlb_v4", "Calico"),
        ("connect4", ""),
    ],
)
def test_load_balancers_in_connect_are_known_by_name(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setattr(pins, "hook_names", lambda _: [name])
    found = check.connect_hooks(Path("/"))
    assert found.found == name
    assert found.ok is (text == "")
    assert text in found.fix


@pytest.mark.kernel
def test_this_machine_passes_and_nothing_is_changed(node: pods.Node, pod: pods.Pod, bpffs: Path) -> None:
    del pod
    found = check.findings(node.cgroup, bpffs)
    assert [each for each in found if not each.ok and each.name != "unprivileged eBPF"] == []
    assert list(bpffs.glob("ambient*")) == []
    assert pins.hook_names(node.cgroup) == []


@pytest.mark.kernel
def test_our_own_hooks_are_seen_and_no_problem(capture: Capture, node: pods.Node) -> None:
    del capture
    hooks = ["connect4", "connect4_spare", "connect6", "connect6_spare"]  # in the order in which they run
    assert pins.hook_names(node.cgroup) == hooks
    assert check.connect_hooks(node.cgroup).ok


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("rule", "clash"),
    [
        pytest.param("fwmark 0x53a lookup 7", True, id="our mark"),
        pytest.param("fwmark 0x53b lookup 7", True, id="our mark of direct connections"),
        pytest.param("fwmark 0x500/0xf00 lookup 7", True, id="some of our mark's bits"),
        pytest.param("from 10.0.0.0/8 lookup 15008", True, id="our table"),
        pytest.param("fwmark 0x4000/0x4000 lookup 7", False, id="other bits"),
        pytest.param("from 10.0.0.0/8 lookup 7", False, id="no mark at all"),
    ],
)
def test_a_pods_rule_on_our_mark_is_found(node: pods.Node, pod: pods.Pod, rule: str, clash: bool) -> None:
    pod.ip(f"rule add priority 99 {rule}")
    waiting = pod.start(lambda channel: channel.recv(1))
    pods.eventually(lambda: (pod.cgroup / "cgroup.procs").read_text())
    found = pods.eventually(lambda: _looked_into_a_pod(node))
    waiting.finish()
    assert found.ok is not clash, found


def _looked_into_a_pod(node: pods.Node) -> check.Finding | None:
    """The pod's process joins the cgroup first and the namespace a moment later."""
    found = check.rules(node.cgroup)
    return found if not found.ok or ", 1 pods" in found.found else None
