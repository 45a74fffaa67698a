"""One listener has so many connections under way and no more: its own wait in the kernel, the others' do not."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ambient.dataplane import abi

from . import apps, harness, pki, process, verdicts

pytestmark = pytest.mark.kernel

MOST = 8
CLIENTS = 30


@pytest.fixture
def node(tmp_path: pathlib.Path, ca: pki.Authority) -> Iterator[harness.Node]:
    with harness.node(tmp_path / "node", ca.svid(), under_way=MOST, connect_ms=500, answer_ms=60_000) as one:
        yield one


def is_served(door: apps.Address) -> bool:
    with contextlib.suppress(OSError, AssertionError), apps.connect(door) as client:
        client.sendall(b"hello")
        return apps.read_exactly(client, 5) == b"hello"
    return False


class Silent:
    """Leaves what comes by one listener without an answer."""

    def __init__(self, node: harness.Node, role: abi.Role = abi.Role.OUTBOUND) -> None:
        self._node = node
        self.listener, self.door = node.listen(role)
        answer = node.agent.handlers[abi.Type.ACCEPTED]
        node.agent.handlers[abi.Type.ACCEPTED] = lambda asked: (
            None if asked.body.listener == self.listener else answer(asked)
        )

    @property
    def asked(self) -> list[verdicts.Question]:
        return [asked for asked in self._node.agent.asked(abi.Type.ACCEPTED) if asked.body.listener == self.listener]

    def crowd(self, stack: contextlib.ExitStack, count: int = CLIENTS) -> list[socket.socket]:
        return [stack.enter_context(apps.connect(self.door)) for _ in range(count)]

    def await_one_after(self, count: int) -> None:
        self._node.agent.wait(lambda: len(self.asked) > count, f"more than {count} questions")

    def await_asked(self, count: int, most: int = 0) -> None:
        """So many and, once whatever came with them was read, no more; or no more than `most`."""
        self._node.agent.wait(lambda: len(self.asked) >= count, f"{count} questions")
        for _ in range(2):  # an event that came before is dealt with before the answer to what is said after it
            self._node.agent.inventory(listeners=False)
        assert count <= len(self.asked) <= (most or count)


@pytest.mark.parametrize("role", [abi.Role.OUTBOUND, abi.Role.INBOUND_PLAIN])
def test_what_is_beyond_the_bound_waits_and_nobody_else_does(node: harness.Node, role: abi.Role) -> None:
    silent = Silent(node, role)
    with apps.App(apps.echo) as app, contextlib.ExitStack() as stack:
        door = node.outbound(verdicts.Choice(app.address))
        crowd = silent.crowd(stack)
        silent.await_asked(MOST)
        assert is_served(door)
        for answered in range(CLIENTS):  # each of them, in turns, and none is lost
            silent.await_one_after(answered)
            node.agent.answer(silent.asked[answered], verdicts.Carry([verdicts.Choice(app.address)]))
        for client in crowd:
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"


def test_what_is_open_is_under_way_no_more(node: harness.Node) -> None:
    with apps.App(apps.echo) as app, contextlib.ExitStack() as stack:
        door = node.outbound(verdicts.Choice(app.address))
        for _ in range(CLIENTS):
            client = stack.enter_context(apps.connect(door))
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"


class Full:
    """A listener with more clients than may be under way, and the ways in which that ends."""

    def __init__(self, node: harness.Node, stack: contextlib.ExitStack) -> None:
        self.node, self.silent = node, Silent(node)
        self.crowd = self.silent.crowd(stack)
        self.silent.await_asked(MOST)

    def refuse(self) -> None:
        for asked in self.silent.asked[:MOST]:
            self.node.agent.answer(asked, verdicts.Refuse())

    def dial_in_vain(self) -> None:
        with apps.dead_port() as dead:
            self._dial(dead)

    def dial_a_mute(self) -> None:
        with apps.mute_port() as mute:
            self._dial(mute)

    def _dial(self, where: apps.Address) -> None:
        for asked in self.silent.asked[:MOST]:
            self.node.agent.answer(asked, verdicts.Carry([verdicts.Choice(where)]))
        self.node.agent.await_ended(MOST)

    def abort(self) -> None:
        for client in self.crowd[:MOST]:
            apps.reset(client)

    def raise_the_bound(self) -> None:
        self.node.agent.settings(answer_ms=60_000, under_way=2 * MOST)

    def take_the_bound_away(self) -> None:
        self.node.agent.settings(answer_ms=60_000)


@pytest.mark.parametrize("ease", [Full.refuse, Full.dial_in_vain, Full.dial_a_mute, Full.abort])
def test_however_one_ends_another_is_accepted(node: harness.Node, ease: Callable[[Full], None]) -> None:
    """Who comes between the end of one and of the next fills the listener again, which then is so down to its half."""
    with contextlib.ExitStack() as stack:
        full = Full(node, stack)
        ease(full)
        node.agent.await_ended(MOST)
        full.silent.await_asked(MOST + MOST // 2 + 1, 2 * MOST)


@pytest.mark.parametrize(("ease", "asked"), [(Full.raise_the_bound, 2 * MOST), (Full.take_the_bound_away, CLIENTS)])
def test_another_bound_counts_at_once(node: harness.Node, ease: Callable[[Full], None], asked: int) -> None:
    with contextlib.ExitStack() as stack:
        full = Full(node, stack)
        ease(full)
        full.silent.await_asked(asked)


def test_a_listener_that_goes_while_it_is_full_comes_back_and_counts_anew(node: harness.Node) -> None:
    silent = Silent(node)
    with contextlib.ExitStack() as stack:
        silent.crowd(stack, MOST + 1)
        silent.await_asked(MOST)
        node.agent.refer(abi.Type.UNLISTEN, silent.listener)
        node.give_listeners(node)
        silent.await_asked(MOST + 1)  # another listener of that number: the old one's eight are not its
        for asked in silent.asked[:MOST]:
            node.agent.answer(asked, verdicts.Refuse())
        node.agent.await_ended(MOST)
        silent.crowd(stack, 2 * MOST)
        silent.await_asked(MOST + 1 + MOST)  # one of the eight was taken for the ninth: it may have one more


def test_a_scan_of_addresses_that_do_not_answer_leaves_descriptors_to_the_others(
    tmp_path: pathlib.Path, ca: pki.Authority
) -> None:
    """Each dial costs two descriptors until its deadline: without a bound the crowd would have all of them."""
    with (
        harness.node(tmp_path / "node", ca.svid(), max_fds=160, under_way=MOST, connect_ms=60_000) as node,
        apps.App(apps.echo) as app,
        apps.mute_port() as mute,
        contextlib.ExitStack() as stack,
    ):
        door, scanner = node.outbound(verdicts.Choice(app.address)), node.outbound(verdicts.Choice(mute))
        for _ in range(400):
            stack.enter_context(apps.connect(scanner))
        assert is_served(door)
        assert node.engine.fds() < 100
        assert not node.agent.ended or {each.reason for each in node.agent.ended} == {abi.Reason.CLOSED}


def test_a_full_listener_costs_no_cpu(node: harness.Node) -> None:
    """It is readable all the time."""
    silent = Silent(node)
    with contextlib.ExitStack() as stack:
        silent.crowd(stack)
        silent.await_asked(MOST)
        before = node.engine.cpu_seconds()
        threading.Event().wait(0.5)  # the idleness itself is what is measured
        assert node.engine.cpu_seconds() - before < 0.1


def test_two_workers_have_their_bound_each(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    with harness.node(tmp_path / "node", ca.svid(), threads=2, under_way=MOST, answer_ms=60_000) as node:
        silent = Silent(node)
        with apps.App(apps.echo) as app, contextlib.ExitStack() as stack:
            silent.crowd(stack)
            silent.await_asked(2 * MOST)
            assert {worker: sum(asked.worker == worker for asked in silent.asked) for worker in (0, 1)} == {
                0: MOST,
                1: MOST,
            }
            answered = 0

            def go_on() -> bool:
                """Answer what was asked by now: a worker that is full again waits until half of that is over."""
                nonlocal answered
                for asked in silent.asked[answered:]:
                    node.agent.answer(asked, verdicts.Carry([verdicts.Choice(app.address)]))
                    answered += 1
                return answered == CLIENTS

            process.eventually(go_on, "the rest is accepted")
