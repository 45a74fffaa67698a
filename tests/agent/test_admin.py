"""`wait` returns when the agent is there and ready, whoever tells of it, or nobody."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ambient.agent.admin import Admin
from ambient.observe.client import Refused


class Agent:
    """As much of one as is waited for."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(node="a")
        self.convergence = SimpleNamespace(done=asyncio.Condition(), revision="7", errors=[])
        self.blockers: list[str] = []

    def not_ready(self) -> list[str]:
        return self.blockers

    def status(self) -> dict[str, object]:
        return {"ready": not self.blockers}


def waiting(agent: Agent, **asked: Any) -> Any:
    return Admin(cast(Any, agent), cast(Any, None)).handlers["wait"](asked)


def test_what_nobody_tells_of_is_noticed() -> None:
    """An engine that answers again, a certificate that came: they change what is ready, and no revision."""

    async def test() -> None:
        agent = Agent()
        agent.blockers = ["engine 7: does not answer"]
        task = asyncio.ensure_future(waiting(agent, revision="7", timeout_s=5))
        await asyncio.sleep(0)
        agent.blockers = []
        assert await task == {"ready": True}

    asyncio.run(test())


def test_a_revision_is_noticed_at_once_when_it_is_told() -> None:
    async def test() -> None:
        agent = Agent()
        task = asyncio.ensure_future(waiting(agent, revision="8", timeout_s=5))
        await asyncio.sleep(0)
        async with agent.convergence.done:
            agent.convergence.revision = "8"
            agent.convergence.done.notify_all()
        async with asyncio.timeout(0.2):
            assert await task == {"ready": True}

    asyncio.run(test())


def test_who_waits_in_vain_is_told_for_what() -> None:
    async def test() -> None:
        agent = Agent()
        agent.blockers = ["certificate x"]
        with pytest.raises(Refused, match="it waits for: certificate x"):
            await waiting(agent, revision="7", timeout_s=0.05)

    asyncio.run(test())
