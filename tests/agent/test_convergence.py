"""Who waits for readiness is told when it comes, though nothing converged meanwhile."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ambient.agent import convergence
from ambient.agent.convergence import Convergence


def a_convergence() -> Convergence:
    async def nothing(*_: object, **__: object) -> Any:
        return SimpleNamespace(messages=[])

    async def numbers() -> set[int]:
        return set()

    decisions = SimpleNamespace(out_of_force=frozenset, drop_unused=lambda *_: None)
    return Convergence(
        SimpleNamespace(),  # type: ignore[arg-type]
        SimpleNamespace(decisions=decisions),  # type: ignore[arg-type]
        SimpleNamespace(numbers=numbers),  # type: ignore[arg-type]
        SimpleNamespace(inventory=nothing),  # type: ignore[arg-type]
        SimpleNamespace(verify=None),  # type: ignore[arg-type]
        SimpleNamespace(moved=nothing, failures={}),  # type: ignore[arg-type]
        lambda _: asyncio.sleep(0, []),  # type: ignore[arg-type]
        inherited=[],
        is_leaving=lambda: False,
        metrics=SimpleNamespace(),  # type: ignore[arg-type]
        tell=lambda: None,
    )


@pytest.mark.parametrize("by", ["the next tick", "a certificate that came"])
def test_who_waits_for_readiness_looks_again_at(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "TICK_S", 0.01 if by == "the next tick" else 60)

    async def main() -> None:
        made, blockers, looked = a_convergence(), ["certificate of a pod"], asyncio.Event()

        def is_ready() -> bool:
            looked.set()
            return not blockers

        async def wait() -> None:
            async with made.done:
                await made.done.wait_for(is_ready)

        ticking, waiting = asyncio.create_task(made.tick()), asyncio.create_task(wait())
        async with asyncio.timeout(2):
            await looked.wait()
            blockers.clear()
            if by != "the next tick":
                await made.look_again()
            await waiting
        ticking.cancel()

    asyncio.run(main())
