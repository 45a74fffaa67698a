"""An engine leaves without a cut: another has its listening sockets, it carries what is open to the end, and exits."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ambient.dataplane import abi

from . import apps, h2peer, harness, pki, verdicts

pytestmark = pytest.mark.kernel


@contextlib.contextmanager
def heir(node: harness.Node, folder: pathlib.Path, **options: int) -> Iterator[harness.Node]:
    """A second engine beside the node's, with its listening sockets; the first is told to drain when all is set."""
    with harness.node(folder, node.leaf, **options) as second:
        node.give_listeners(second)
        drain(node)
        yield second


def drain(node: harness.Node, timeout_s: int = 0) -> None:
    node.leaves = True
    node.agent.drain(timeout_s)
    node.agent.inventory(listeners=False)


def unacknowledged(peer: socket.socket) -> int:
    """Bytes that the other end of a loopback connection has sent and this one has not taken."""
    port = f":{peer.getsockname()[1]:04X}"
    rows = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(queues.partition(":")[0], 16) for _, _, to, _, queues, *_ in rows if to.endswith(port))


def exchange(client: socket.socket, message: bytes = b"hello") -> None:
    client.sendall(message)
    assert apps.read_exactly(client, len(message)) == message


def test_the_old_engine_carries_what_is_open_and_the_new_one_what_comes(
    pair: harness.Pair, tmp_path: pathlib.Path
) -> None:
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        with apps.connect(door) as old:
            exchange(old)
            with heir(pair.near, tmp_path / "near2") as near, heir(pair.far, tmp_path / "far2") as far:
                with apps.connect(door) as fresh:
                    exchange(fresh)
                    exchange(old, b"still here")
                    rows = [row for _, row in far.agent.inventory() if row.type is abi.Type.ROW_CONN]
                    assert len(rows) == 1, "the peer opened a tunnel to the new engine"
                    assert pair.far.engine.is_alive()
                    assert pair.near.engine.is_alive()
                old.close()
                for node in (pair.near, pair.far):
                    node.engine.await_end()
                    (record,) = node.agent.ended
                    assert (record.moved, record.reason) == ((15, 15), abi.Reason.CLOSED)
                for node in (near, far):
                    (record,) = node.agent.await_ended()
                    assert record.moved == (5, 5)


def test_streams_of_a_tunnel_whose_end_is_announced_are_still_taken(pair: harness.Pair, tmp_path: pathlib.Path) -> None:
    """They were on their way: the far engine drains, and the near one learns of it a round trip later."""
    with apps.App(apps.echo) as app:
        door = pair.to(app.address)
        with apps.connect(door) as first:
            exchange(first)
            os.kill(pair.near.engine.pid, signal.SIGSTOP)
            with heir(pair.far, tmp_path / "far2"):
                second = apps.connect(door)
                second.sendall(b"hello")
                os.kill(pair.near.engine.pid, signal.SIGCONT)
                assert apps.read_exactly(second, 5) == b"hello"
                second.close()
                exchange(first)
                first.close()
                pair.far.engine.await_end()


def test_nobody_fails_while_one_engine_after_another_takes_over(pair: harness.Pair, tmp_path: pathlib.Path) -> None:
    """Three times on the far node, under load: short connections without a pause, and long ones through it all."""
    done = threading.Event()
    served: list[int] = []

    def hammer() -> None:
        count = 0
        while not done.is_set():
            with apps.connect(door) as client:
                exchange(client)
            count += 1
        served.append(count)

    with apps.App(apps.echo) as app, contextlib.ExitStack() as heirs:
        door = pair.to(app.address)
        long = [heirs.enter_context(apps.connect(door)) for _ in range(20)]
        threads = [threading.Thread(target=hammer) for _ in range(4)]
        for thread in threads:
            thread.start()
        chain = [pair.far]
        for turn in range(3):
            chain[-1].agent.await_ended(20)
            chain.append(heirs.enter_context(heir(chain[-1], tmp_path / f"far{turn}")))
            for client in long:
                exchange(client)
        chain[-1].agent.await_ended(20)
        done.set()
        for thread in threads:
            thread.join(apps.PATIENCE)
        assert len(served) == 4, "a client failed"
        assert all(node.engine.is_alive() for node in (chain[0], chain[-1]))
        for client in long:
            client.close()
        for node in chain[:-1]:
            node.engine.await_end()
        chain[-1].agent.wait(
            lambda: sum(len(node.agent.ended) for node in chain) >= sum(served) + len(long), "every record"
        )
        ended = [record for node in chain for record in node.agent.ended]
        assert len(ended) == sum(served) + len(long)
        assert {record.reason for record in ended} == {abi.Reason.CLOSED}


def test_no_byte_is_lost_of_what_ends_while_the_engine_leaves(pair: harness.Pair, tmp_path: pathlib.Path) -> None:
    total = 24 << 20

    def serve(sock: socket.socket) -> None:
        apps.read_exactly(sock, 5)
        apps.send_pattern(sock, total)

    with apps.App(serve) as app:
        door = pair.to(app.address)
        with apps.connect(door) as client:
            client.sendall(b"hello")
            with heir(pair.near, tmp_path / "near2"), heir(pair.far, tmp_path / "far2"):
                time.sleep(1.5)  # what is to be seen is a reader who comes late: the tunnels are drained by now
                assert apps.expect_pattern(client) == total
                client.close()
                for node in (pair.near, pair.far):
                    node.engine.await_end()
                    (record,) = node.agent.ended
                    assert (record.reason, record.moved) == (abi.Reason.CLOSED, (5, total))


def test_a_peer_that_takes_nothing_holds_up_the_end_for_a_moment_only(far: harness.Node, ca: pki.Authority) -> None:
    with apps.App(lambda sock: apps.send_pattern(sock, 40_000)) as app, socket.socket() as narrow:
        narrow.settimeout(10)
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        narrow.connect(far.tunnel())
        with h2peer.Peer(ca.svid("shop", "web").client_context().wrap_socket(narrow), client=True) as peer:
            stream = peer.ask(f"{app.address[0]}:{app.address[1]}")
            harness.process.eventually(lambda: unacknowledged(peer.sock) > 10_000, "bytes wait for the peer")
            peer.reset(stream)
            far.agent.await_ended()
            drain(far)
            far.engine.await_end()


def test_a_cut_ends_connections_of_a_drained_engine(pair: harness.Pair, tmp_path: pathlib.Path) -> None:
    with apps.App(apps.echo) as app, apps.connect(pair.to(app.address)) as client:
        exchange(client)
        (answer,) = (number for number, v in pair.far.agent.answers.items() if isinstance(v, verdicts.Carry))
        with heir(pair.far, tmp_path / "far2"):
            pair.far.agent.cut(answer)
            assert apps.is_reset(client)
            (record,) = pair.far.agent.await_ended()
            assert record.reason == abi.Reason.CUT
            pair.far.engine.await_end()


def test_what_is_open_when_the_drain_timeout_passes_is_cut_and_recorded(far: harness.Node) -> None:
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        exchange(client)
        drain(far, timeout_s=1)
        assert apps.is_reset(client)
        far.engine.await_end()
        (record,) = far.agent.ended
        assert (record.reason, record.text) == (abi.Reason.CUT, "the drain timeout passed")


def test_told_again_it_hurries(far: harness.Node) -> None:
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        exchange(client)
        drain(far)
        exchange(client)
        drain(far, timeout_s=1)
        assert apps.is_reset(client)
        far.engine.await_end()
        (record,) = far.agent.ended
        assert record.reason == abi.Reason.CUT


def test_it_stays_until_its_records_were_seen(far: harness.Node) -> None:
    far.agent.settings(flags=abi.SettingsFlag.ACKNOWLEDGES)
    with apps.App(apps.echo) as app:
        with apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
            exchange(client)
            drain(far)
        far.agent.await_ended()
        time.sleep(2.2)  # two of its ticks, at which it would leave
        assert far.engine.is_alive()
        far.agent.refer(abi.Type.SEEN, 1)
        far.engine.await_end()


def test_listening_again_takes_a_drain_back(far: harness.Node) -> None:
    """Its successor died."""
    with apps.App(apps.echo) as app:
        door = far.outbound(verdicts.Choice(app.address))
        with apps.connect(door) as client:
            exchange(client)
            far.agent.drain()
            far.give_listeners(far)
        time.sleep(2.2)  # two of its ticks, at which it would leave
        with apps.connect(door) as client:
            exchange(client)


def test_told_to_end_it_goes_on_until_another_engine_is_there(far: harness.Node) -> None:
    with apps.App(apps.echo) as app:
        door = far.outbound(verdicts.Choice(app.address))
        far.engine.leave()
        far.agent.wait(lambda: far.agent.hello[0].leaving == 1, "it says that it is to end")
        time.sleep(2.2)  # two of its ticks, at which it would leave
        with apps.connect(door) as client:
            exchange(client)
            drain(far)
            exchange(client)
        far.agent.await_ended()
        far.engine.await_end()


def test_told_to_end_it_says_so_to_the_next_agent(far: harness.Node) -> None:
    far.outbound()
    far.agent.close()
    far.engine.leave()
    assert far.next_agent().hello[0].leaving == 1


def test_told_to_end_twice_it_ends(far: harness.Node) -> None:
    with apps.App(apps.echo) as app, apps.connect(far.outbound(verdicts.Choice(app.address))) as client:
        exchange(client)
        far.leaves = True
        far.engine.leave()
        far.agent.wait(lambda: far.agent.hello[0].leaving == 1, "the first is heard")
        far.engine.leave()
        assert apps.is_reset(client)
        far.engine.await_end()


def test_told_to_end_with_nothing_to_listen_on_it_ends(far: harness.Node) -> None:
    """Every pod left the mesh: nobody is to come after it."""
    far.leaves = True
    far.engine.leave()
    far.engine.await_end()
