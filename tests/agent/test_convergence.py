"""The order of a change, and of an agent's first; and who waits for readiness is told when it comes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ambient.agent import convergence
from ambient.agent.convergence import Convergence
from ambient.capture.errors import CaptureError
from tests.model.builders import a_world


class Parts:
    """What a convergence moves. `said`: in which order. `broken`: capture fails as a whole."""

    def __init__(self, *, broken: bool = False) -> None:
        self.said: list[str] = []
        self.broken = broken
        self.over = asyncio.Event()  # all is said

    def note(self, what: str) -> Any:
        async def noted() -> None:
            self.said.append(what)
            if what == "settled":
                self.over.set()

        return noted

    def tell(self, what: str) -> Any:
        return lambda *_: self.said.append(what)

    async def in_order(self, _: object) -> Any:
        self.said.append("node's addresses")
        return []

    async def converge(self, *_: object, **__: object) -> None:
        if self.broken:
            self.over.set()
            raise CaptureError("nothing can be captured")
        self.said.append("capture")

    def convergence(self) -> Convergence:
        async def numbers() -> set[int]:
            return set()

        async def moved() -> bool:
            return False

        decisions = SimpleNamespace(out_of_force=frozenset, drop_unused=lambda *_: None)
        proxy = SimpleNamespace(
            decisions=decisions,
            touched=self.tell("judge what changed"),
            know_host=lambda _: None,
            waiting=SimpleNamespace(touched=lambda _: None),
            inherit=self.tell("end what is inherited and denied"),
            judge_all=self.tell("judge all that is inherited"),
        )
        ways = SimpleNamespace(
            numbers=numbers,
            void=self.note("void"),
            stand_by=self.note("lease"),
            take_over=self.note("flows"),
            settled=self.note("settled"),
        )
        engines = SimpleNamespace(
            inventory=lambda **_: asyncio.sleep(0, SimpleNamespace(messages=[])),
            listen=self.tell("listen"),
            barrier=self.note("barrier"),
        )
        worlds = SimpleNamespace(take=lambda _: asyncio.sleep(0, frozenset()), world=a_world())
        return Convergence(
            worlds,  # type: ignore[arg-type]
            proxy,  # type: ignore[arg-type]
            ways,  # type: ignore[arg-type]
            engines,  # type: ignore[arg-type]
            SimpleNamespace(verify=None),  # type: ignore[arg-type]
            SimpleNamespace(moved=moved, failures={}, converge=self.converge),  # type: ignore[arg-type]
            self.in_order,
            inherited=[],
            is_leaving=lambda: False,
            metrics=SimpleNamespace(),  # type: ignore[arg-type]
            tell=lambda: None,
        )


async def a_world_comes_to(parts: Parts) -> list[str]:
    """What is said of an agent's first."""
    return await a_world_comes(parts, parts.convergence())


async def a_world_comes(parts: Parts, made: Convergence) -> list[str]:

    async def source() -> Any:
        yield a_world()
        await asyncio.Event().wait()

    jobs = [asyncio.create_task(made.follow(source())), asyncio.create_task(made.run())]
    async with asyncio.timeout(2):
        await parts.over.wait()
    for job in jobs:
        job.cancel()
    return parts.said


def test_what_an_earlier_agent_allowed_is_judged_before_pods_are_captured() -> None:
    assert asyncio.run(a_world_comes_to(Parts())) == [
        "void",
        "judge what changed",
        "node's addresses",
        "end what is inherited and denied",
        "capture",
        "lease",
        "flows",
        "judge all that is inherited",
        "listen",
        "barrier",
        "settled",
    ]


def test_where_nothing_can_be_captured_what_is_inherited_and_denied_ends_all_the_same() -> None:
    said = asyncio.run(a_world_comes_to(Parts(broken=True)))
    assert said == ["void", "judge what changed", "node's addresses", "end what is inherited and denied"]


@pytest.mark.parametrize("broken", [False, True], ids=["decides", "cannot decide yet"])
def test_an_agent_stands_by_verdicts_as_soon_as_they_are_its_own(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "TICK_S", 0.0)

    async def main() -> None:
        parts = Parts(broken=broken)
        made = parts.convergence()
        await a_world_comes(parts, made)
        parts.said.clear()
        ticking = asyncio.create_task(made.tick())
        async with asyncio.timeout(2), made.done:
            await made.done.wait()
        ticking.cancel()
        assert ("lease" in parts.said) == (not broken)

    asyncio.run(main())


@pytest.mark.parametrize("by", ["the next tick", "a certificate that came"])
def test_who_waits_for_readiness_looks_again_at(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "TICK_S", 0.01 if by == "the next tick" else 60)

    async def main() -> None:
        made, blockers, looked = Parts().convergence(), ["certificate of a pod"], asyncio.Event()

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
