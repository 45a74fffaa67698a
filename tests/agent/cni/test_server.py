"""The plugin's socket: who may ask, how much, how many at once; the descriptor that comes along is closed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ambient.agent.cni import server
from ambient.agent.cni.request import Refusal, Request
from ambient.agent.cni.server import CniServer

from .builders import a_message

Answerer = Callable[[Request, int], Awaitable[None]]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="amb") as folder:
        yield Path(folder) / "cni.sock"


async def nothing(_: Request, __: int) -> None:
    """Every pod may go on."""


def serving(
    path: Path, work: Callable[[], Awaitable[object]], answerer: Answerer = nothing, *, asker: int | None = None
) -> object:
    async def run() -> object:
        made = CniServer(path, answerer, asker=os.getuid() if asker is None else asker)
        await made.start()
        try:
            async with asyncio.timeout(30):
                return await work()
        finally:
            await made.close()

    return asyncio.run(run())


async def ask(path: Path, *parts: bytes, fd: int = -1) -> bytes:
    """Everything the server says to a message that comes in these parts."""

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(path))
            try:
                for number, part in enumerate(parts):
                    socket.send_fds(sock, [part], [fd] if fd >= 0 and not number else [])
                sock.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: sock.recv(4096), b""))
            except (ConnectionResetError, BrokenPipeError):
                return b""

    return await asyncio.to_thread(talk)


def test_a_message_is_read_whole_and_its_descriptor_is_lent(path: Path) -> None:
    seen: list[tuple[Request, int]] = []

    async def answerer(request: Request, fd: int) -> None:
        seen.append((request, os.fstat(fd).st_ino))

    message = a_message()
    with tempfile.TemporaryFile() as file:
        before = len(os.listdir("/proc/self/fd"))
        answer = serving(path, lambda: ask(path, message[:9], message[9:40], message[40:], fd=file.fileno()), answerer)
        assert len(os.listdir("/proc/self/fd")) == before
        assert (answer, seen[0][0].pod, seen[0][1]) == (b"pass", "shop/web", os.fstat(file.fileno()).st_ino)


def test_without_a_descriptor_there_is_none(path: Path) -> None:
    seen: list[int] = []

    async def answerer(_: Request, fd: int) -> None:
        seen.append(fd)

    assert serving(path, lambda: ask(path, a_message()), answerer) == b"pass"
    assert seen == [-1]


def test_a_refusal_is_an_error_of_the_askers_version(path: Path) -> None:
    async def answerer(_: Request, __: int) -> None:
        raise Refusal(11, "ambient: wait", "for it")

    answer = serving(path, lambda: ask(path, a_message({"cniVersion": "0.4.0"})), answerer)
    told = {"cniVersion": "0.4.0", "code": 11, "msg": "ambient: wait", "details": "for it"}
    assert json.loads(str(answer, "utf8")) == told  # type: ignore[arg-type]


def test_nonsense_is_an_error_and_the_next_is_served(path: Path) -> None:
    async def work() -> list[bytes]:
        return [await ask(path, b"what?"), await ask(path, a_message())]

    first, second = serving(path, work)  # type: ignore[misc]
    assert (json.loads(first)["code"], second) == (4, b"pass")


def test_a_mistake_of_ours_holds_the_pod_and_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def answerer(_: Request, __: int) -> None:
        raise ZeroDivisionError("oops")

    answer = serving(path, lambda: ask(path, a_message()), answerer)
    assert json.loads(str(answer, "utf8"))["code"] == 11  # type: ignore[arg-type]
    assert "oops" in caplog.text


def test_others_are_not_answered(path: Path) -> None:
    assert serving(path, lambda: ask(path, a_message()), asker=os.getuid() + 1) == b""


def test_the_socket_is_its_owners_and_goes_with_the_server(path: Path) -> None:
    async def work() -> int:
        return os.stat(path).st_mode & 0o777

    assert serving(path, work) == 0o600
    assert not path.exists()


def test_a_message_beyond_the_limit_is_not_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MESSAGE_MAX", 1000)
    assert serving(path, lambda: ask(path, a_message({"x": "y" * 2000}))) == b""


def test_who_says_nothing_is_hung_up_on_and_his_descriptor_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_S", 0.05)

    async def work() -> bytes:
        def wait() -> bytes:
            with socket.socket(socket.AF_UNIX) as sock, tempfile.TemporaryFile() as file:
                sock.settimeout(5)
                sock.connect(str(path))
                socket.send_fds(sock, [b"x"], [file.fileno()])
                return sock.recv(100)

        return await asyncio.to_thread(wait)

    before = len(os.listdir("/proc/self/fd"))
    assert serving(path, work) == b""
    assert len(os.listdir("/proc/self/fd")) == before


def test_more_than_the_limit_at_once_are_not_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CLIENTS_MAX", 2)
    release = asyncio.Event()

    async def answerer(_: Request, __: int) -> None:
        await release.wait()

    async def work() -> list[bytes]:
        asking = [asyncio.create_task(ask(path, a_message())) for _ in range(3)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [b""]
        release.set()
        return sorted(await asyncio.gather(*asking))

    assert serving(path, work, answerer) == [b"", b"pass", b"pass"]


def test_closing_leaves_nobody_waiting(path: Path) -> None:
    async def answerer(_: Request, __: int) -> None:
        await asyncio.Event().wait()

    async def work() -> asyncio.Task[bytes]:
        asking = asyncio.create_task(ask(path, a_message()))
        await asyncio.sleep(0.05)
        return asking

    async def run() -> bytes:
        made = CniServer(path, answerer, asker=os.getuid())
        await made.start()
        asking = await work()
        await made.close()
        return await asking

    assert asyncio.run(run()) == b""
