"""Which pods go on, which are held and why; what is waited for comes by event, and for no longer than said."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ambient.agent.cni import gate
from ambient.agent.cni.gate import Gate
from ambient.agent.cni.namespaces import Namespaces
from ambient.agent.cni.request import Refusal, Request
from ambient.agent.cni.sandboxes import Sandboxes
from ambient.capture.netns import PodNetns
from ambient.model.mesh import Namespace
from ambient.model.world import World, diff

from .builders import FIRST, a_pod, a_request, a_world

COOKIE = 7  # of the first network namespace; they count on


class Agent:
    """What a gate stands between: Worlds that come, and a capture that does what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source: World | None = None
        self.news = asyncio.Condition()
        self.failures: dict[str, str] = {}
        self.can_capture = True
        self.settled = 0
        self.sandboxes, self.namespaces = Sandboxes(folder / "sandboxes"), Namespaces(folder)
        self.sandboxes.restore([], lambda cookie: PodNetns(cookie, "", -1, 0))
        self.gate = Gate(self, self, self.settle, self.sandboxes, self.namespaces, {"kube-system"})
        self._captured: dict[str, int] = {}

    def cookie_of(self, key: str) -> int | None:
        return self._captured.get(key)

    async def settle(self) -> None:
        self.settled += 1
        assert self.source is not None
        world = self.sandboxes.overlay(self.source)
        wanted = [workload for workload in world.workloads.values() if workload.addresses and self.can_capture]
        spaces = {workload.key: self.sandboxes.netns_of(workload.uid) for workload in wanted}
        self._captured = {key: space.cookie for key, space in spaces.items() if space is not None}

    async def tell(self, world: World) -> None:
        self.namespaces.revise(world, diff(self.source or World.build(), world))
        self.source = world
        async with self.news:
            self.news.notify_all()

    async def answer(self, request: Request) -> str:
        """Empty for a pod that goes on, else why it is held."""
        descriptor = os.open("/dev/null", os.O_RDONLY)
        try:
            await self.gate.answer(request, descriptor)
        except Refusal as refusal:
            return f"{refusal.code} {refusal}"
        finally:
            os.close(descriptor)
        return ""


Play = Callable[[Callable[[Agent], Awaitable[None]]], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "KNOWN_S", 0.2)
    monkeypatch.setattr(gate, "OUTSIDE_S", 0.05)
    cookies = itertools.count(COOKIE)
    monkeypatch.setattr(gate.netns, "of_descriptor", lambda fd, path: PodNetns(next(cookies), path, fd, 1))


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run a scene with an agent; descriptors are closed."""

    def play(scene: Callable[[Agent], Awaitable[None]]) -> None:
        async def run() -> None:
            agent = Agent(tmp_path)
            try:
                await scene(agent)
            finally:
                agent.sandboxes.close()

        before = len(os.listdir("/proc/self/fd"))
        asyncio.run(run())
        assert len(os.listdir("/proc/self/fd")) == before

    return play


def test_an_enrolled_pod_goes_on_when_it_is_captured(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world(a_pod()))
        assert await agent.answer(a_request()) == ""
        assert agent.cookie_of("shop/web") == COOKIE
        assert [each.addresses for each in agent.sandboxes] == [(FIRST,)]

    play(scene)


def test_an_agent_without_a_world_holds_nobody_who_was_outside_for_the_one_before_it(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        successor = Agent(agent.folder)
        assert (await successor.answer(a_request())).startswith("11 ")
        await agent.tell(World.build(namespaces=[Namespace(name="shop"), Namespace(name="bank", enrolled=True)]))
        successor = Agent(agent.folder)
        assert await successor.answer(a_request()) == ""
        assert (await successor.answer(a_request(namespace="bank"))).startswith("11 ")
        await successor.tell(World.build(namespaces=[Namespace(name="bank", enrolled=True)]))
        assert (await successor.answer(a_request())).startswith("11 ")

    play(scene)


@pytest.mark.parametrize("fields", [{"enrolled": False}, {"host_network": True}], ids=["not enrolled", "host network"])
def test_who_is_not_to_be_captured_goes_on_at_once(play: Play, fields: dict[str, bool]) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world(a_pod(**fields)))
        assert await agent.answer(a_request()) == ""
        assert (agent.settled, list(agent.sandboxes)) == (0, [])

    play(scene)


def test_a_pod_that_cannot_be_captured_is_held_with_the_reason(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world(a_pod()))
        agent.can_capture, agent.failures = False, {"shop/web": "lo is down"}
        assert await agent.answer(a_request()) == "11 ambient: pod shop/web is not captured: lo is down"
        assert await agent.answer(a_request("CHECK")) == "100 ambient: pod shop/web is not captured: lo is down"

    play(scene)


def test_a_pod_without_an_address_or_a_namespace_is_held(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world(a_pod()))
        assert "gave pod shop/web no address" in await agent.answer(a_request(addresses=()))
        with pytest.raises(Refusal, match="network namespace of pod shop/web could not be opened"):
            await agent.gate.answer(a_request(), -1)

    play(scene)


@pytest.mark.parametrize(
    "late",
    [a_world(), a_world(a_pod(uid="of a namesake before it")), None],
    ids=["no such pod", "a namesake", "no World at all"],
)
def test_news_is_waited_for(play: Play, late: World | None) -> None:
    async def scene(agent: Agent) -> None:
        if late is not None:
            await agent.tell(late)
        asking = asyncio.create_task(agent.answer(a_request()))
        await asyncio.sleep(0)
        await agent.tell(a_world())
        assert not asking.done()
        await agent.tell(a_world(a_pod()))
        assert await asking == ""
        assert agent.cookie_of("shop/web") == COOKIE

    play(scene)


def test_what_does_not_come_is_named(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        assert "11 ambient: the agent on this node waits for the first configuration" in await agent.answer(a_request())
        await agent.tell(a_world())
        assert "waits for pod shop/web (uid uid-web)" in await agent.answer(a_request())
        assert "waits for pod new/web" in await agent.answer(a_request(namespace="new"))

    play(scene)


def test_an_exempt_namespace_never_waits_for_the_first_world(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        assert await agent.answer(a_request(namespace="kube-system")) == ""

    play(scene)


def test_a_namespace_outside_waits_for_a_moment_and_goes_on(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world())
        assert await agent.answer(a_request(namespace="elsewhere")) == ""
        assert agent.settled == 0

    play(scene)


def test_in_that_moment_a_pods_own_label_is_seen(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world())
        asking = asyncio.create_task(agent.answer(a_request(namespace="elsewhere")))
        await asyncio.sleep(0)
        await agent.tell(a_world(a_pod(namespace="elsewhere")))
        assert await asking == ""
        assert agent.cookie_of("elsewhere/web") == COOKIE

    play(scene)


def test_a_namespace_that_joins_meanwhile_is_waited_for_as_such(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world())
        asking = asyncio.create_task(agent.answer(a_request(namespace="elsewhere")))
        await asyncio.sleep(0)
        await agent.tell(a_world().replace([Namespace(name="elsewhere", enrolled=True)], revision="2"))
        assert "waits for pod elsewhere/web" in await asking

    play(scene)


def test_a_pod_that_was_captured_once_may_get_another_sandbox(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world(a_pod()))
        assert await agent.answer(a_request()) == ""
        assert await agent.answer(a_request("DEL")) == ""
        assert agent.cookie_of("shop/web") is None
        assert await agent.answer(a_request("DEL")) == ""
        assert agent.settled == 2, "nothing was to be done for the second"
        assert await agent.answer(a_request(container="c2")) == ""
        assert await agent.answer(a_request("DEL")) == "", "of the first sandbox, once more"
        assert agent.cookie_of("shop/web") == COOKIE + 1

    play(scene)


def test_gc_ends_what_the_runtime_has_no_more(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world(a_pod(), a_pod("api")))
        assert await agent.answer(a_request()) == ""
        assert await agent.answer(a_request(name="api", container="c2")) == ""
        assert await agent.answer(a_request("GC", container="", valid=None)) == ""
        assert await agent.answer(a_request("GC", container="", valid=frozenset({"c2", "c9"}))) == ""
        assert (agent.cookie_of("shop/web"), agent.cookie_of("shop/api")) == (None, COOKIE + 1)

    play(scene)


def test_check_is_content_with_what_is_captured_or_none_of_ours(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        await agent.tell(a_world(a_pod(), a_pod("free", enrolled=False)))
        assert await agent.answer(a_request()) == ""
        for name in ("web", "free", "unheard"):
            assert await agent.answer(a_request("CHECK", name)) == ""

    play(scene)


def test_an_unknown_command_is_refused(play: Play) -> None:
    async def scene(agent: Agent) -> None:
        assert await agent.answer(a_request("JUMP")) == "4 ambient: JUMP is no command of CNI 1.1"

    play(scene)
