"""The admin socket with real clients, polite and not."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ambient.observe import admin, client
from ambient.observe.admin import AdminServer, NoAnswer, Refused, Unreachable, call


async def _echo(asked: dict[str, Any]) -> object:
    return asked


async def _no(_: dict[str, Any]) -> object:
    raise Refused("not today")


async def _broken(_: dict[str, Any]) -> object:
    raise KeyError("oops")


async def _large(_: dict[str, Any]) -> object:
    return ["x" * 1000] * 5000


async def _deaf(_: dict[str, Any]) -> object:
    raise TimeoutError("engine 7 did not answer within 10 s")


async def _mute(_: dict[str, Any]) -> object:
    raise TimeoutError


HANDLERS = {"echo": _echo, "no": _no, "broken": _broken, "large": _large, "deaf": _deaf, "mute": _mute}


def with_server(path: Path, work: Callable[[AdminServer], Awaitable[Any]], **options: float) -> Any:
    async def run() -> Any:
        server = AdminServer(path, HANDLERS, **options)
        await server.start()
        try:
            async with asyncio.timeout(10):
                return await work(server)
        finally:
            await server.close()

    return asyncio.run(run())


async def ask(path: Path, verb: str, **args: object) -> Any:
    return await asyncio.to_thread(call, path, verb, deadline_s=5.0, **args)


async def exchange(path: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    writer.write_eof()
    found = await reader.read()
    writer.close()
    await writer.wait_closed()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


def test_a_verb_gets_its_arguments_and_gives_its_result(path: Path) -> None:
    assert with_server(path, lambda _: ask(path, "echo", a=1, b=["ü"])) == {"a": 1, "b": ["ü"]}


def test_the_socket_is_for_its_owner_alone(path: Path) -> None:
    def mode() -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert with_server(path, lambda _: asyncio.to_thread(mode)) == 0o600


def test_large_answers_arrive_whole(path: Path) -> None:
    assert len(with_server(path, lambda _: ask(path, "large"))) == 5000


def test_a_refusal_reaches_the_caller_as_its_text(path: Path) -> None:
    with pytest.raises(Refused, match=r"^not today$"):
        with_server(path, lambda _: ask(path, "no"))


def test_a_handlers_bug_is_told_logged_and_survived(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(_: AdminServer) -> Any:
        with pytest.raises(Refused, match="broken failed in the agent: KeyError"):
            await ask(path, "broken")
        return await ask(path, "echo", still="here")

    assert with_server(path, work) == {"still": "here"}
    assert "admin verb broken failed" in caplog.text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b"garbage\n", "not JSON", id="garbage"),
        pytest.param(b"[]\n", "a request is an object", id="no object"),
        pytest.param(b"{}\n", "a request is an object", id="no verb"),
        pytest.param(b'{"verb":7}\n', "a request is an object", id="a verb that is no text"),
        pytest.param(b'{"verb":"dance"}\n', "there are broken, deaf, echo, large, mute, no", id="an unknown verb"),
        pytest.param(b"\xff\xfe\n", "not JSON", id="bytes that are no text"),
        pytest.param(b"x" * (admin.LINE_MAX + 10), "at most", id="an endless line"),
    ],
)
def test_nonsense_gets_a_sentence(path: Path, line: bytes, expected: str) -> None:
    answer = with_server(path, lambda _: exchange(path, line))
    assert expected in json.loads(answer)["error"]


def test_several_requests_on_one_connection_are_answered_in_order(path: Path) -> None:
    answer = with_server(path, lambda _: exchange(path, b'{"verb":"echo","n":1}\n{"verb":"echo","n":2}\n'))
    assert [json.loads(line)["ok"]["n"] for line in answer.splitlines()] == [1, 2]


def test_half_a_request_is_no_request(path: Path) -> None:
    assert with_server(path, lambda _: exchange(path, b'{"verb":"echo"')) == b""


def test_a_silent_client_is_let_go(path: Path) -> None:
    async def work(_: AdminServer) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(path))
        found = await reader.read()
        writer.close()
        await writer.wait_closed()
        return found

    assert with_server(path, work, idle_s=0.05) == b""


def test_a_client_that_never_reads_keeps_nobody_from_being_served(path: Path) -> None:
    async def work(_: AdminServer) -> Any:
        with socket.socket(socket.AF_UNIX) as greedy:
            greedy.connect(str(path))
            greedy.sendall(b'{"verb":"large"}\n' * 10)
            return await ask(path, "echo", a=1)

    assert with_server(path, work) == {"a": 1}


def test_more_clients_than_the_limit_are_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "CLIENTS_MAX", 2)

    async def work(_: AdminServer) -> None:
        held = [await asyncio.open_unix_connection(str(path)) for _ in range(2)]
        with pytest.raises(Refused, match="more than 2 clients"):
            await ask(path, "echo")
        for _, writer in held:
            writer.close()
            await writer.wait_closed()

    with_server(path, work)


def test_an_answer_that_came_before_the_question_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is full says so and closes: the question then finds the pipe broken, and the answer in it."""
    connect = client._connect
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def connect_and_be_refused(sock: socket.socket, to: str) -> None:
            connect(sock, to)
            with server.accept()[0] as accepted:
                accepted.sendall(b'{"error":"full"}\n')

        monkeypatch.setattr(client, "_connect", connect_and_be_refused)
        with pytest.raises(Refused, match="full"):
            call(path, "echo", deadline_s=5.0)


def test_the_socket_of_a_dead_agent_is_replaced_and_ours_is_removed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert with_server(path, lambda _: ask(path, "echo")) == {}
    assert not path.exists()


def test_the_socket_of_a_living_agent_is_left_alone(path: Path) -> None:
    async def work(_: AdminServer) -> Any:
        with pytest.raises(OSError, match="another agent is listening"):
            await AdminServer(path, {}).start()
        return await ask(path, "echo", mine=True)

    assert with_server(path, work) == {"mine": True}


def test_a_successors_socket_is_not_removed_by_its_predecessor(path: Path) -> None:
    def succeed() -> None:
        path.unlink()
        path.touch()

    with_server(path, lambda _: asyncio.to_thread(succeed))
    assert path.exists()


def test_hundreds_of_rude_clients_leave_no_descriptor_behind(path: Path) -> None:
    async def work(_: AdminServer) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(200):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.connect(str(path))
                rude.sendall([b"", b'{"verb":', b'{"verb":"large"}\n', b"x\n"][number % 4])
            await asyncio.sleep(0)
        await ask(path, "echo")
        async with asyncio.timeout(30):
            while len(os.listdir("/proc/self/fd")) > before + 2:  # noqa: ASYNC110 (the kernel has no event for it)
                await asyncio.sleep(0.01)

    with_server(path, work)


def test_a_missing_socket_is_said_to_be_missing(path: Path) -> None:
    with pytest.raises(Unreachable, match="there is no admin socket"):
        call(path, "status")


def test_a_dead_socket_is_said_to_be_dead(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(Unreachable, match="its agent has died"):
        call(path, "status")


def test_what_is_no_socket_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"is no socket: an agent's is admin\.sock"):
        call(tmp_path, "status")


@pytest.mark.parametrize("said", [b"3", b"{}", b"[]", b'"ok"', b"HTTP/1.1 400 Bad Request"])
def test_who_answers_as_no_agent_does_is_none(said: bytes) -> None:
    with pytest.raises(NoAnswer, match="no Ambient agent: it said"):
        client.result(said, "there")


def test_a_path_too_long_for_a_socket_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="cannot connect"):
        call(tmp_path / ("x" * 120), "status")


def test_an_agent_that_does_not_answer_in_time_is_named(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(NoAnswer, match=r"did not answer 'status' within 0.05 s"):
            call(path, "status", deadline_s=0.05)


def test_a_handler_that_waited_for_somebody_in_vain_says_for_whom(path: Path) -> None:
    async def scenario(_: AdminServer) -> None:
        with pytest.raises(Refused, match=r"^deaf: engine 7 did not answer within 10 s$"):
            await ask(path, "deaf")
        with pytest.raises(Refused, match=r"^mute: what it needs did not answer in time$"):
            await ask(path, "mute")

    with_server(path, scenario)
