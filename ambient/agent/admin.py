"""The agent's admin verbs: what `ambient get`, `ambient explain` and the lab ask. Reads the agent; changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ambient.agent.testify import testify
from ambient.observe import explain, views
from ambient.observe.admin import Handler, Refused

if TYPE_CHECKING:
    from ambient.agent.root import Agent
    from ambient.agent.scrape import Scrape

WAIT_MOST_S = 110.0  # below what the server gives any handler
LOOK_S = 0.5  # readiness has parts that no convergence tells of: an engine that answers again, a certificate that came


class Admin:
    def __init__(self, agent: Agent, scrape: Scrape) -> None:
        self._agent, self._scrape = agent, scrape
        self.handlers: dict[str, Handler] = {
            "status": self._status,
            "wait": self._wait,
            "look": self._look,
            "workloads": self._workloads,
            "services": self._services,
            "policies": self._policies,
            "certificates": self._certificates,
            "engines": self._engines,
            "connections": self._connections,
            "explain": self._explain,
            "evidence": self._evidence,
            "metrics": self._metrics,
        }

    async def _status(self, _: dict[str, Any]) -> dict[str, object]:
        return self._agent.status()

    async def _wait(self, asked: dict[str, Any]) -> dict[str, object]:
        """Return when the agent has converged to a source revision."""
        agent, revision = self._agent, str(asked.get("revision", ""))
        convergence = agent.convergence
        timeout = min(float(asked.get("timeout_s", 10.0)), WAIT_MOST_S)
        try:
            async with asyncio.timeout(timeout), convergence.done:
                while convergence.revision != revision or agent.not_ready():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(convergence.done.wait(), LOOK_S)
        except TimeoutError:
            waits = "; ".join(agent.not_ready() + convergence.errors) or "nothing named"
            raise Refused(
                f"node {agent.settings.node} is at revision {convergence.revision or 'none'} after {timeout:g} s, "
                f"not at {revision}; it waits for: {waits}"
            ) from None
        return agent.status()

    async def _look(self, _: dict[str, Any]) -> object:
        """Return when what is true now is taken in; above all, that the mesh is being removed: not at the next tick."""
        await self._agent.convergence.settle()
        return {}

    async def _workloads(self, _: dict[str, Any]) -> object:
        return views.workloads(self._agent.world, self._agent.enrolment.state)

    async def _services(self, _: dict[str, Any]) -> object:
        return views.services(self._agent.world)

    async def _policies(self, _: dict[str, Any]) -> object:
        return views.policies(self._agent.world)

    async def _certificates(self, _: dict[str, Any]) -> object:
        return self._agent.store.status()

    async def _engines(self, _: dict[str, Any]) -> object:
        return self._agent.engines.status()

    async def _connections(self, _: dict[str, Any]) -> object:
        return views.connections(await self._scrape.connections())

    async def _explain(self, asked: dict[str, Any]) -> object:
        return explain.explain(
            self._agent.world,
            str(asked.get("from", "")),
            str(asked.get("to", "")),
            node=self._agent.settings.node,
            host=self._agent.proxy.host,
            in_the_way=self._agent.ways.in_the_way,
        )

    async def _evidence(self, asked: dict[str, Any]) -> object:
        return await testify(self._agent, self._scrape, str(asked.get("namespace", "")))

    async def _metrics(self, _: dict[str, Any]) -> object:
        return await self._scrape.text()
