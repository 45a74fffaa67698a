"""An attachment against a real SEQPACKET socket: order, descriptors, back-pressure, and ends of every kind."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ambient.dataplane import abi, wire
from ambient.dataplane.link import Link
from ambient.dataplane.wire import Message


class Peer:
    """The engine's side of one attachment."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.sock: socket.socket | None = None

    def accept(self) -> socket.socket:
        self.sock, _ = self.listener.accept()
        return self.sock

    def close(self) -> None:
        self.listener.close()
        if self.sock is not None:
            self.sock.close()


class Heard:
    """What a Link reported, and a way to wait for it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.lost: list[str] = []
        self._news = asyncio.Condition()

    def on_messages(self, _: Link, messages: list[Message]) -> None:
        self.messages += messages
        self._notify()

    def on_lost(self, _: Link, reason: str) -> None:
        self.lost.append(reason)
        self._notify()

    def _notify(self) -> None:
        async def tell() -> None:
            async with self._news:
                self._news.notify_all()

        self._task = asyncio.get_running_loop().create_task(tell())

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(true)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def run(tmp_path: Path, story: Callable[[Link, socket.socket, Heard], object]) -> None:
    async def main() -> None:
        before = open_fds()
        peer, heard = Peer(tmp_path / "s"), Heard()
        link = Link(tmp_path / "s", heard.on_messages, heard.on_lost)
        try:
            await story(link, peer.accept(), heard)  # type: ignore[misc]
        finally:
            link.close()
            peer.close()
        assert open_fds() == before, "descriptors leaked"

    asyncio.run(main())


def sock_fds(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, abi.PACKET_MAX, abi.FDS_MAX)
    return data, fds


def test_messages_of_one_turn_leave_in_one_packet_with_their_descriptors(tmp_path: Path) -> None:
    async def story(link: Link, sock: socket.socket, _: Heard) -> None:
        read, write = os.pipe()
        link.send(Message(abi.Type.UNLISTEN, abi.Ref(id=1)))
        link.send(
            Message(abi.Type.CLIENTS_MAP, fds=[write]), Message(abi.Type.STASH, abi.PodRef(), fds=[read], give=True)
        )
        os.close(write)  # ours; `read` was given away
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        data, fds = sock_fds(sock)
        assert len(data) == 16 + 8 + 24
        os.write(fds[0], b"x")
        assert os.read(fds[1], 1) == b"x"
        for fd in fds:
            os.close(fd)

    run(tmp_path, story)


def test_what_the_socket_does_not_take_waits_and_arrives_in_order(tmp_path: Path) -> None:
    async def story(link: Link, sock: socket.socket, _: Heard) -> None:
        sock.setblocking(False)
        count, label = 400, bytes(4000)
        for number in range(count):
            link.send(Message(abi.Type.ANSWER, abi.Answer(question=number), label))
        loop, seen = asyncio.get_running_loop(), []
        async with asyncio.timeout(10):
            while len(seen) < count:
                data = await loop.sock_recv(sock, abi.PACKET_MAX)
                while data:
                    head = abi.Head.from_buffer_copy(data)
                    seen.append(abi.Answer.from_buffer_copy(data, 8).question)
                    data = data[head.size :]
        assert seen == list(range(count))

    run(tmp_path, story)


def test_records_seen_in_one_turn_are_acknowledged_by_one_running_number(tmp_path: Path) -> None:
    async def story(link: Link, sock: socket.socket, _: Heard) -> None:
        for expected in (3, 6):
            for _ in range(3):
                link.seen()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            data = sock.recv(abi.PACKET_MAX)
            assert len(data) == 16
            assert abi.Ref.from_buffer_copy(data, 8).id == expected

    run(tmp_path, story)


def test_a_record_is_written_before_it_is_acknowledged_whatever_else_leaves_in_that_turn(tmp_path: Path) -> None:
    """An agent that is killed in between would lose it: the engine tells the next agent only what was not seen."""

    async def story(link: Link, sock: socket.socket, _: Heard) -> None:
        link.send(Message(abi.Type.UNLISTEN, abi.Ref(id=1)))  # an answer, say, of an earlier packet
        earlier: list[bytes] = []
        asyncio.get_running_loop().call_soon(lambda: earlier.append(sock.recv(abi.PACKET_MAX)))  # as the journal writes
        link.seen()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [abi.Head.from_buffer_copy(data).type for data in earlier] == [abi.Type.UNLISTEN]
        assert len(earlier[0]) == 16, "nothing else was in that packet"
        assert abi.Head.from_buffer_copy(sock.recv(abi.PACKET_MAX)).type == abi.Type.SEEN

    run(tmp_path, story)


def test_what_the_engine_says_arrives_with_descriptors(tmp_path: Path) -> None:
    async def story(_: Link, sock: socket.socket, heard: Heard) -> None:
        (packet,) = wire.pack(
            [Message(abi.Type.HELLO, abi.Hello(abi=1)), Message(abi.Type.ROW_LISTENER, abi.Listen(), fds=[0])]
        )
        sock.sendmsg([packet.data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", packet.fds))])
        await heard.until(lambda: len(heard.messages) == 2)
        os.close(heard.messages[1].fds[0])

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("data", "fds", "says"),
    [(b"\1\2\3", [], "head was expected"), (bytes(abi.Head(type=99, size=8)), [0, 1], "type 99")],
    ids=["short", "unknown, with descriptors"],
)
def test_nonsense_ends_the_attachment_and_leaks_nothing(tmp_path: Path, data: bytes, fds: list[int], says: str) -> None:
    async def story(link: Link, sock: socket.socket, heard: Heard) -> None:
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
        await heard.until(lambda: bool(heard.lost))
        assert says in heard.lost[0]
        assert not link.is_open

    run(tmp_path, story)


def test_the_engines_end_is_reported_once_and_later_messages_are_dropped(tmp_path: Path) -> None:
    async def story(link: Link, sock: socket.socket, heard: Heard) -> None:
        sock.close()
        await heard.until(lambda: bool(heard.lost))
        read, write = os.pipe()
        link.send(Message(abi.Type.STASH, abi.PodRef(), fds=[read], give=True))
        os.close(write)
        link.close()
        assert len(heard.lost) == 1

    run(tmp_path, story)


def test_nobody_listening_is_an_os_error(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            Link(tmp_path / "none", lambda *_: None, lambda *_: None)

    asyncio.run(main())
