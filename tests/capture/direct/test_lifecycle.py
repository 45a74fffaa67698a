"""Agents of other versions, pods that leave, tables that are full: what becomes of verdicts and of live connections."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ambient.capture import Capture, CaptureError, Role, TableFullError, abi, direct
from ambient.capture.abi import Kind
from ambient.capture.libbpf import Link, Object

from .. import apps, pods
from .conftest import PORT, Pair
from .talk import CLOSE, WAIT, answer, talk

pytestmark = pytest.mark.kernel

OLDER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx) { return 1; }
SEC("cgroup/connect6") int connect6(struct bpf_sock_addr *ctx) { return 1; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Connect hooks of an agent that knows of no verdicts."""
    folder = tmp_path_factory.mktemp("older")
    (folder / "older.c").write_text(OLDER)
    machine = subprocess.check_output(["cc", "-dumpmachine"], text=True).strip()
    command = f"clang -O2 -g -target bpf -I/usr/include/{machine} -c older.c -o older.o"
    subprocess.run(command.split(), cwd=folder, check=True)
    return (folder / "older.o").read_bytes()


@pytest.fixture
def talking(pair4: Pair) -> pods.Remote:
    """A live direct connection, to the VIP."""
    pair4.allow(pair4.vip)
    server = pair4.server.start(answer, str(pair4.at[0]), PORT, 5, 3, WAIT)
    assert server.receive() == "listening"
    client = pair4.client.start(talk, *pair4.spelled(pair4.vip), 5, 3, CLOSE)
    assert client.receive() == "talked"
    return client


@pytest.mark.parametrize("hook", ["connect4", "connect6"])
def test_verdicts_that_an_older_agents_hooks_did_not_read_are_void(
    pair4: Pair, talking: pods.Remote, node: pods.Node, bpffs: Path, older: bytes, hook: str
) -> None:
    pair4.capture.close()
    with Object(older, "older") as loaded:
        loaded.load()
        with loaded.program(hook) as program, Link.pinned(bpffs / "ambient-v1/links" / hook) or _none() as link:
            link.update(program)
    pair4.capture = Capture.open(node.cgroup, bpffs)
    assert pair4.capture.direct.verdicts() == {}
    assert len(pair4.capture.direct.flows()) == 1  # and what lives goes on
    talking.tell(None)
    assert talking.receive() == "ended"
    assert pair4.ended()[0].outcome is direct.Outcome.CLOSED
    pair4.capture.close()


def test_verdicts_without_hooks_are_void(pair4: Pair, node: pods.Node, bpffs: Path) -> None:
    pair4.allow(pair4.vip)
    pair4.capture.close()
    (bpffs / "ambient-v1/links/connect4").unlink()
    pair4.capture = Capture.open(node.cgroup, bpffs)
    assert pair4.capture.direct.verdicts() == {}
    pair4.capture.close()


def test_an_agent_of_before_the_direct_path_is_upgraded(pair4: Pair, node: pods.Node, bpffs: Path) -> None:
    """It has none of its pins."""
    pair4.capture.close()
    pins = bpffs / "ambient-v1"
    for gone in ("verdicts", "lease", "sockets", "flows", "ended"):
        (pins / "maps" / gone).unlink()
    for gone in ("links/sock_ops", "links_spare/sock_ops"):
        (pins / gone).unlink()
    pair4.capture = Capture.open(node.cgroup, bpffs)
    pair4.capture.direct.renew(3600)
    pair4.allow(pair4.vip)
    server = pair4.serve()
    assert pair4.dial(pair4.vip)["said"] == b"app"
    assert len(pair4.ended()) == 1
    server.finish()
    pair4.capture.close()


def test_a_pod_that_is_forgotten_takes_its_verdicts_along_and_nobody_elses(pair4: Pair, talking: pods.Remote) -> None:
    other = direct.Verdict(1, Kind.REFUSE)
    pair4.capture.direct.put(pair4.server.netns.cookie, pair4.vip, other)
    pair4.capture.forget(pair4.client.netns.cookie)
    assert list(pair4.capture.direct.verdicts().values()) == [other]
    assert len(pair4.capture.direct.flows()) == 1
    talking.tell(None)
    assert talking.receive() == "ended"
    assert len(pair4.ended()) == 1


def test_uninstalling_leaves_nothing_and_live_connections_go_on(pair4: Pair, talking: pods.Remote, bpffs: Path) -> None:
    pair4.capture.uninstall()
    assert list(bpffs.glob("ambient-*")) == []
    talking.tell(None)
    assert talking.receive() == "ended"


def test_clear_voids_everybodys(pair4: Pair) -> None:
    pair4.allow(pair4.vip)
    pair4.allow(pair4.at)
    pair4.capture.direct.clear()
    assert pair4.capture.direct.verdicts() == {}


def test_a_full_table_says_so_and_the_rest_goes_through_the_engine(pair4: Pair) -> None:
    cookie, table = pair4.client.netns.cookie, pair4.capture.direct
    verdict = direct.Verdict(1, Kind.REFUSE)
    for number in range(abi.MAX_VERDICTS):
        table.put(cookie, (pods.ip_address("10.1.0.0") + (number >> 8), number & 255), verdict)
    with pytest.raises(TableFullError, match=f"there are {abi.MAX_VERDICTS}: delete what is not used"):
        pair4.allow(pair4.vip)
    app = pair4.client.start(apps.dial, *pair4.spelled(pair4.vip))
    assert apps.take(pair4.listeners["client"][Role.OUTBOUND])[1] == pair4.spelled(pair4.vip)
    assert app.receive()["said"] == b"engine"
    table.clear()
    pair4.allow(pair4.vip)
    assert len(table.verdicts()) == 1


@pytest.mark.parametrize(
    ("kind", "endpoints"),
    [
        pytest.param(Kind.DIRECT, 0, id="direct to nowhere"),
        pytest.param(Kind.DIRECT, abi.ENDPOINTS + 1, id="too many"),
        pytest.param(Kind.PASS, 1, id="left alone, to somebody"),
        pytest.param(Kind.REFUSE, 1, id="refused, to somebody"),
    ],
)
def test_a_verdict_that_says_nothing_clear_is_an_error(pair4: Pair, kind: Kind, endpoints: int) -> None:
    with pytest.raises(ValueError, match=f"a {kind.name} verdict cannot have {endpoints} endpoints"):
        pair4.rule(kind, pair4.vip, *[pair4.endpoint()] * endpoints)


def test_a_verdict_with_every_endpoint_comes_back_as_it_was_put(pair: Pair) -> None:
    endpoints = tuple(pair.endpoint(port=at + 1, weight=at, server=at or None) for at in range(abi.ENDPOINTS))
    number = pair.allow(pair.vip, *endpoints)
    assert pair.capture.direct.verdicts() == {
        (pair.client.netns.cookie, pair.vip): direct.Verdict(number, Kind.DIRECT, endpoints)
    }


def _none() -> Link:
    raise CaptureError("nothing is pinned")
