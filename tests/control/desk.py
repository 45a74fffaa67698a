"""Where callers are admitted: an API server that reviews tokens, a World beside it, and who comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ambient.control.callers import Callers
from ambient.model.mesh import Node, Workload
from ambient.model.world import World
from ambient.xds.caller import Caller, Unauthenticated
from ambient.xds.served import PEER
from tests.identity import virtual
from tests.identity.test_tokens import a_token

from .apiserver import ApiServer

ACCOUNT = "system:serviceaccount:ambient-system:ambient-agent"
EXTRA = "authentication.kubernetes.io/"
AGENT = Caller(
    namespace="ambient-system", service_account="ambient-agent", pod="agent-1", pod_uid="uid-agent-1", node="node-1"
)


def an_answer(**extra: str | None) -> dict[str, Any]:
    """A TokenReview's status; an extra that is None is left out."""
    given = {"pod-name": "agent-1", "pod-uid": "uid-agent-1", "node-name": "node-1"} | {
        key.replace("_", "-"): value for key, value in extra.items()
    }
    said = {EXTRA + key: [value] for key, value in given.items() if value is not None}
    return {"authenticated": True, "audiences": ["ambient-control"], "user": {"username": ACCOUNT, "extra": said}}


def a_world(*, uid: str = "uid-agent-1", node: str = "node-1") -> World:
    agent = Workload(
        namespace="ambient-system",
        name="agent-1",
        uid=uid,
        node=node,
        service_account="ambient-agent",
        host_network=True,
    )
    return World.build(nodes=[Node(name="node-1")], workloads=[agent])


def bound(uid: str = "uid-agent-1", **more: Any) -> str:
    """A token of agent-1."""
    return a_token(**{"kubernetes.io": {"pod": {"name": "agent-1", "uid": uid}, **more}})


def forged(number: int) -> str:
    """It says all that a good one says; who signed it is the API server's to see."""
    return a_token(jti=str(number))


class Desk:
    """Callers, the API server behind them, and the World beside."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.server.review = lambda _: an_answer()
        self.world = a_world()
        self.callers = Callers(
            self.server.api(), accounts=["ambient-system/ambient-agent"], world=lambda: self.world, now=virtual.now
        )

    async def admit(self, token: str = "", peer: str = "10.0.0.1") -> Caller:
        said = {"x": "y", "authorization": f"Bearer {token or a_token()}", PEER: peer}
        return await self.callers.authenticate(said)

    async def refusal(self, token: str = "") -> Unauthenticated:
        with pytest.raises(Unauthenticated) as refused:
            await self.admit(token)
        return refused.value


def at_the_desk(test: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Desk())

    virtual.run(main())
