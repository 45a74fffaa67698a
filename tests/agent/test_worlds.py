"""The World that is judged by: the newest with this node's sandboxes over it, and what changes from one to the next."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.agent.cni.namespaces import Namespaces
from ambient.agent.cni.sandboxes import Sandboxes
from ambient.agent.worlds import Worlds
from ambient.capture.netns import PodNetns
from ambient.model.mesh import MeshConfig, Service, ServicePort, address
from ambient.model.world import World, diff
from tests.agent.cni.builders import FIRST, SECOND, a_pod, a_world

WEB = Service(
    namespace="shop", name="web", vips=(), ports=(ServicePort(name="p", port=80, target=80),), selector={"app": "web"}
)
LABELS = {"labels": {"app": "web"}}


class Node:
    def __init__(self, folder: Path) -> None:
        self.sandboxes = Sandboxes(folder / "sandboxes")
        self.sandboxes.restore([], lambda cookie: PodNetns(cookie, "", -1, 0))
        self.worlds = Worlds(MeshConfig(), self.sandboxes, Namespaces(folder))
        self.cookies = iter(range(1, 1000))

    def arrive(self, name: str, *ips: str) -> None:
        assert self.worlds.source is not None
        netns = PodNetns(next(self.cookies), "", os.open("/dev/null", os.O_RDONLY), 0)
        workload = self.worlds.source.workloads[f"shop/{name}"]
        self.sandboxes.arrive(f"c-{name}-{netns.cookie}", netns, tuple(map(address, ips)), workload)

    async def take(self, source: World) -> frozenset[str]:
        """What changed by its own account, which must not be less than it is."""
        before = self.worlds.world
        told = await self.worlds.take(source)
        assert diff(before, self.worlds.world).touched() <= told
        return told


def test_an_arrival_changes_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    async def scene(node: Node) -> None:
        world = a_world(a_pod("web", **LABELS), a_pod("other", SECOND), WEB)
        await node.take(world)
        node.arrive("web", "10.1.0.1")
        assert await node.take(world) == {"wl:shop/web", "svc:shop/web", f"ip:{FIRST}"}
        assert node.worlds.world.workload_at(FIRST) is not None
        assert node.worlds.source is world
        later = world.replace([a_pod("web", FIRST, **LABELS)], revision="2")
        assert "wl:shop/other" not in await node.take(later)
        assert node.worlds.world is later

    play(scene, tmp_path)


def test_those_who_wait_for_news_hear_of_it(tmp_path: Path) -> None:
    async def scene(node: Node) -> None:
        async def hear() -> World | None:
            async with node.worlds.news:
                await node.worlds.news.wait()
            return node.worlds.source

        hearing = asyncio.create_task(hear())
        await asyncio.sleep(0)
        world = a_world()
        await node.take(world)
        assert await hearing is world

    play(scene, tmp_path)


def test_the_namespaces_file_is_about_the_source(tmp_path: Path) -> None:
    async def scene(node: Node) -> None:
        await node.take(a_world())
        assert (tmp_path / "namespaces").read_text() == "ambient-cni 1\noutside elsewhere\nmesh shop\n"

    play(scene, tmp_path)


IPS = st.sampled_from([(), ("10.1.0.1",), ("10.1.0.2",), ("10.1.0.1", "fd00::1")])
STEP = st.tuples(st.sampled_from(["World", "arrive", "depart"]), st.sampled_from(["web", "api"]), IPS)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=12))
def test_no_change_is_missed_in_any_order_of_events(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, tuple[str, ...]]]
) -> None:
    async def scene(node: Node) -> None:
        world = a_world(a_pod("web", **LABELS), a_pod("api", **LABELS), WEB)
        await node.take(world)
        for what, name, ips in steps:
            if what == "World":
                world = world.replace([a_pod(name, *map(address, ips), **LABELS)], revision="n")
            elif what == "arrive" and ips:
                node.arrive(name, *ips)
            else:
                for sandbox in node.sandboxes:
                    if sandbox.pod == f"shop/{name}":
                        node.sandboxes.depart(sandbox.container, world)
            await node.take(world)

    play(scene, tmp_path_factory.mktemp("n"))


def play(scene, folder: Path) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        node = Node(folder)
        try:
            await scene(node)
        finally:
            node.sandboxes.close()

    asyncio.run(run())
