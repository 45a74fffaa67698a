"""A plaintext connection of our own is recognised among the records, and what became of it is told."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from ambient.agent import knock
from ambient.agent.knock import Knocks
from ambient.model.mesh import address
from ambient.observe.records import Ending, Flow

STRICT = Flow(reporter="destination", verdict="deny", reason="strict_mtls", rule="PeerAuthentication shop/strict")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset
Judge = Callable[[Knocks, str, str], Awaitable[None]]


async def knocked(judge: Judge, ip: str = "127.0.0.1") -> dict[str, object]:
    """At a server that does with each client what `judge(knocks, source, destination)` does, then resets it."""
    knocks = Knocks()
    loop = asyncio.get_running_loop()
    with socket.create_server((ip, 0), family=socket.AF_INET6 if ":" in ip else socket.AF_INET) as server:
        server.setblocking(False)
        port = server.getsockname()[1]

        async def serve() -> None:
            client, (host, source, *_) = await loop.sock_accept(server)
            with client:
                shown = "[{}]:{}" if ":" in ip else "{}:{}"
                await judge(knocks, shown.format(host, source), shown.format(ip, port))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve())
            (found,) = await knocks.at([(address(ip), port)])
    assert not knocks._awaited, "nothing is waited for any more"
    return found


def tells(flow: Flow) -> Judge:
    async def judge(knocks: Knocks, source: str, destination: str) -> None:
        knocks.ended(flow, Ending(connection="1", source="127.0.0.1:1", destination=destination))
        knocks.ended(flow, Ending(connection="2", source=source, destination=destination))

    return judge


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_a_refusal_is_told_with_its_reason_and_rule(ip: str) -> None:
    found = asyncio.run(knocked(tells(STRICT), ip))
    assert (found["outcome"], found["reason"], found["rule"]) == ("refused", STRICT.reason, STRICT.rule)


def test_one_that_is_carried_was_let_in_and_is_over_when_we_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knock, "VERDICT_S", 0.1)
    carried = Flow(reporter="destination", rule="no policy")

    async def judge(knocks: Knocks, source: str, destination: str) -> None:
        await asyncio.sleep(0.15)  # its record comes with its end, after we have given up waiting
        knocks.ended(carried, Ending(connection="1", source=source, destination=destination))

    assert asyncio.run(knocked(judge))["outcome"] == "let in"


def test_the_clients_side_of_a_connection_is_not_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knock, "VERDICT_S", 0.05)
    assert asyncio.run(knocked(tells(Flow(reporter="source"))))["outcome"] == "unanswered"


def test_where_nobody_listens_it_could_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knock, "VERDICT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (found,) = asyncio.run(Knocks().at([(address("127.0.0.1"), port)]))
    assert (found["outcome"], found["reason"]) == ("unreachable", "Connection refused")
    assert found["address"] == f"127.0.0.1:{port}"
