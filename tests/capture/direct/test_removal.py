"""Each piece of the direct path taken away in turn, with nobody there to mend it: it goes on, or the engine gets it, or
nobody. What no verdict allows never comes to the application."""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ambient.capture import Role, abi

from .. import apps, pods
from .conftest import Pair

pytestmark = pytest.mark.kernel

DIRECT, ENGINE = "app", "engine"


@dataclass(frozen=True)
class Victim:
    pair: Pair
    bpffs: Path

    @property
    def family(self) -> int:
        return 4 if self.pair.family == "v4" else 6

    def detach(self, link: str) -> None:
        pods.detach(self.bpffs, link)

    def unpin(self, pin: str) -> None:
        (self.bpffs / "ambient-v1" / pin).unlink()

    def delete(self, table: str, who: pods.Pod) -> None:
        pods.delete_entry(self.bpffs, table, who.netns.cookie)

    def delete_verdict(self) -> None:
        ip, port = self.pair.vip
        key = abi.VerdictKey(self.pair.client.netns.cookie, abi.Ip.of(ip), port)
        pods.delete_entry(self.bpffs, "verdicts", bytes(key))


REMOVALS: dict[str, tuple[Callable[[Victim], object], str, int]] = {  # who gets it; how much is mended
    "connect hook": (lambda v: v.detach(f"links/connect{v.family}"), DIRECT, 1),
    "its spare": (lambda v: v.detach(f"links_spare/connect{v.family}"), DIRECT, 1),
    "sock_ops hook": (lambda v: v.detach("links/sock_ops"), DIRECT, 1),
    "its spare sock_ops": (lambda v: v.detach("links_spare/sock_ops"), DIRECT, 1),
    "server's lookup": (lambda v: v.detach(f"lookup/{v.pair.server.netns.cookie}"), DIRECT, 1),
    "its spare lookup": (lambda v: v.detach(f"lookup_spare/{v.pair.server.netns.cookie}"), DIRECT, 1),
    "setsockopt hook": (lambda v: v.detach("links/setsockopt"), DIRECT, 1),
    "verdict": (lambda v: v.delete_verdict(), ENGINE, 0),
    "client's entry in pods": (lambda v: v.delete("pods", v.pair.client), apps.FORBIDDEN, 1),
    "server's entry in pods": (lambda v: v.delete("pods", v.pair.server), ENGINE, 1),
    "client's entry in enrolled": (lambda v: v.delete("enrolled", v.pair.client), DIRECT, 1),
    "pin of verdicts": (lambda v: v.unpin("maps/verdicts"), DIRECT, 1),
    "pin of the lease": (lambda v: v.unpin("maps/lease"), DIRECT, 1),
    "pin of sockets": (lambda v: v.unpin("maps/sockets"), DIRECT, 1),
    "pin of flows": (lambda v: v.unpin("maps/flows"), DIRECT, 1),
    "pin of ended": (lambda v: v.unpin("maps/ended"), DIRECT, 1),
    "pin of the sock_ops hook": (lambda v: v.unpin("links/sock_ops"), DIRECT, 1),
}


@pytest.fixture
def victim(pair: Pair, served: pods.Remote, bpffs: Path) -> Victim:
    pair.allow(pair.vip)
    assert pair.dial(pair.vip)["said"] == b"app"  # a new pod's IPv6 needs a second
    served.receive()
    pair.ended()
    return Victim(pair, bpffs)


def goes_to(pair: Pair) -> str:
    """Who answers the client, or its error."""
    client = pair.client.start(apps.dial, *pair.spelled(pair.vip), "brief")
    listener = pair.listeners["client"][Role.OUTBOUND]
    ready, _, _ = select.select([client, listener], [], [], pods.DEADLINE)
    if listener in ready:
        apps.take(listener)
    seen = client.receive()
    client.finish()
    return seen if isinstance(seen, str) else str(seen["said"].decode())


@pytest.mark.parametrize(("remove", "expected", "mended"), REMOVALS.values(), ids=REMOVALS)
def test_without_one_piece_no_record_is_lost_and_nothing_gets_in_unallowed(
    victim: Victim, served: pods.Remote, remove: Callable[[Victim], object], expected: str, mended: int
) -> None:
    pair = victim.pair
    remove(victim)
    assert goes_to(pair) == expected
    assert served.waiting() == (expected == DIRECT)
    assert [record.bytes_in for record in pair.ended(int(expected == DIRECT))] == [3] * (expected == DIRECT)
    assert pair.capture.direct.flows() == []
    assert len(pair.capture.verify()) == mended
    if mended:
        assert goes_to(pair) == DIRECT
        assert len(pair.ended()) == 1


@pytest.mark.parametrize("spare", [False, True], ids=["first", "spare"])
def test_a_sock_ops_hook_that_goes_during_a_connection_takes_no_record_along(
    victim: Victim, served: pods.Remote, spare: bool
) -> None:
    pair = victim.pair
    app = pair.client.start(apps.move, *pair.spelled(pair.vip))
    assert app.receive() == "ready"
    served.receive()  # it has said its word
    victim.detach("links_spare/sock_ops" if spare else "links/sock_ops")
    app.finish()
    assert pair.ended()[0].bytes_in == 3
    assert pair.capture.direct.flows() == []


def test_without_both_sock_ops_hooks_nothing_is_announced_and_the_server_lets_nobody_in(
    victim: Victim, served: pods.Remote
) -> None:
    pair = victim.pair
    for link in ("links/sock_ops", "links_spare/sock_ops"):
        victim.detach(link)
    client = pair.client.start(apps.dial, *pair.spelled(pair.vip))
    assert apps.take(pair.listeners["server"][Role.INBOUND_PLAIN])[1] == (str(pair.at[0]), pair.at[1])
    assert client.receive()["said"] == b"engine"
    assert not served.waiting()
    assert len(pair.capture.verify()) == 2
    assert goes_to(pair) == DIRECT


def test_without_both_connect_hooks_the_server_lets_nobody_in(victim: Victim, served: pods.Remote) -> None:
    pair = victim.pair
    for link in ("links", "links_spare"):
        victim.detach(f"{link}/connect{victim.family}")
    client = pair.client.start(apps.dial, *pair.spelled(pair.at), "brief")
    assert apps.take(pair.listeners["server"][Role.INBOUND_PLAIN])[1] == (str(pair.at[0]), pair.at[1])
    client.receive()
    assert not served.waiting()


def test_without_its_entry_in_flows_a_connection_that_is_being_opened_is_nobodys(
    victim: Victim, served: pods.Remote
) -> None:
    pair = victim.pair
    with pods.unforwarded(pair.client.node):
        client = pair.client.start(apps.dial, *pair.spelled(pair.vip))
        (flow,) = pods.eventually(pair.capture.direct.flows)
        key = abi.FlowKey(
            abi.Ip.of(flow.source[0]), abi.Ip.of(flow.destination[0]), flow.source[1], flow.destination[1]
        )
        pods.delete_entry(victim.bpffs, "flows", bytes(key))
    assert client.receive() in ("ConnectionResetError", "TimeoutError", apps.REFUSED)
    assert not served.waiting()
    (record,) = pair.ended()
    assert (record.flow.admitted, record.bytes_out) == (False, 0)
