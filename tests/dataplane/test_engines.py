"""Which engine serves, what it is told, and what becomes of the others; seen from the engines' ends of the sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ambient.dataplane import abi, engine, engines, wire
from ambient.dataplane.engine import Engine
from ambient.dataplane.engines import Superseded, choose

from .several import COOKIE, Node, a_pod, contexts, story, until


@pytest.mark.parametrize(
    ("engines", "expected"),
    [
        pytest.param([("1", False)], "1", id="the only one"),
        pytest.param([("1", False), ("2", False)], "2", id="the youngest"),
        pytest.param([("1", False), ("2", True)], "1", id="not one that was told to leave"),
        pytest.param([("1", True), ("2", True)], "2", id="the youngest if all were"),
    ],
)
def test_what_comes_is_taken_by(engines: list[tuple[str, bool]], expected: str) -> None:
    found = [SimpleNamespace(name=name, leaving=leaving) for name, leaving in engines]
    assert choose(cast(list[Engine], found)).name == expected


def test_nothing_is_asked_for_before_the_agent_can_judge_nor_before_it_can_of_the_next_engine(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        first = node.start(1)
        await node.engines.attach()
        await node.engines.barrier()
        assert first.of(abi.Type.SETTINGS) == []
        node.engines.listen()
        await node.engines.barrier()
        assert [abi.Settings.from_buffer_copy(raw).answer_ms for raw in first.of(abi.Type.SETTINGS)] == [5]
        second = node.start(2)
        async with node.running():
            assert len(await second.until(abi.Type.SETTINGS)) == 1

    story(tmp_path, tell)


def test_a_context_that_is_not_kept_is_forgotten_by_the_engine_and_not_told_to_the_next(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        first = node.start(1)
        await node.engines.attach()
        for number in (1, 2, 3):
            node.engines.set_context(number, 1 << 62, b"cert", b"key", b"roots")
        node.engines.keep_contexts(frozenset({2, 3}))
        node.engines.keep_contexts(frozenset({2, 3}))
        await node.engines.barrier()
        assert [contexts(raw) for raw in first.of(abi.Type.CONTEXTS)] == [{2, 3}], "said once"
        second = node.start(2)
        async with node.running():
            told = await second.until(abi.Type.CONTEXT, 2)
        assert [abi.Context.from_buffer_copy(raw).context for raw in told] == [2, 3]

    story(tmp_path, tell)


def test_a_younger_engine_has_everything_before_the_older_is_told_to_drain(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        first = node.start(1)
        with a_pod() as pod:
            async with node.running() as agent:
                agent.add_pod(pod)
                second = node.start(2)
                (raw,) = await first.until(abi.Type.DRAIN)
                assert abi.Drain.from_buffer_copy(raw).timeout_s == 9
                kinds = [kind for kind, _ in second.told]
                assert kinds.index(abi.Type.LISTEN) < kinds.index(abi.Type.INVENTORY), "it has shown that it listens"
                assert agent.pid == second.pid
                assert [each["state"] for each in agent.status()] == ["draining", "serving"]
                listens = len(first.of(abi.Type.LISTEN))
                agent.add_pod(pod)
                await second.until(abi.Type.LISTEN, 2)
                assert len(first.of(abi.Type.LISTEN)) == listens, "that would have it accept again"

    story(tmp_path, tell)


def test_nobody_drains_before_the_pods_are_known(tmp_path: Path) -> None:
    """Until then only the older engine may have the listening sockets."""

    async def tell(node: Node) -> None:
        first, second = node.start(1), node.start(2)
        await node.engines.attach()
        run = asyncio.create_task(node.engines.run())
        await second.until(abi.Type.INVENTORY)
        await node.engines.barrier()
        assert first.of(abi.Type.DRAIN) == []
        node.engines.listen()
        await first.until(abi.Type.DRAIN)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    story(tmp_path, tell)


def test_the_older_takes_everything_back_when_the_younger_dies(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        first = node.start(1)
        with a_pod() as pod:
            async with node.running() as agent:
                agent.add_pod(pod)
                second = node.start(2)
                await first.until(abi.Type.DRAIN)
                before = len(first.of(abi.Type.LISTEN))
                await second.die()
                await first.until(abi.Type.LISTEN, before + 1)
                assert agent.pid == first.pid
                assert node.gone == [frozenset({first.pid})]
                assert list(node.run_dir.iterdir()) == [node.run_dir / f"{first.name}.0.sock"]
                await node.start(3).until(abi.Type.LISTEN)
                await first.until(abi.Type.DRAIN, 2)

    story(tmp_path, tell)


def test_the_younger_goes_on_when_the_older_dies_or_has_finished(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        first, second = node.start(1), node.start(2)
        async with node.running() as agent:
            await first.until(abi.Type.DRAIN)
            await first.die()
            await until(lambda: len(agent.status()) == 1)
            assert agent.attached
            assert agent.pid == second.pid
            assert node.brought == 0

    story(tmp_path, tell)


def test_a_younger_one_that_says_nothing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "HELLO_TIMEOUT", 0.1)

    async def tell(node: Node) -> None:
        first = node.start(1)
        async with node.running() as agent:
            await agent.barrier()
            mute = node.start(2, mute=True)
            await until(lambda: mute._agent is not None)
            await asyncio.sleep(0.2)  # it had its time
            await agent.barrier()
            assert agent.pid == first.pid
            assert first.of(abi.Type.DRAIN) == []

    story(tmp_path, tell)


@pytest.mark.parametrize("why", ["it was told to leave", "it is of another build"])
def test_another_is_brought_when(tmp_path: Path, why: str) -> None:
    async def tell(node: Node) -> None:
        first = node.start(1)

        async def bring() -> None:
            node.start(2, build=node.build)

        node.bring = bring
        if why == "it is of another build":
            node.build = "2"
        async with node.running() as agent:
            if why == "it was told to leave":
                await first.say_hello(leaving=True)
            await first.until(abi.Type.DRAIN)
            assert agent.pid == node.fakes[1].pid
            assert node.brought == 1

    story(tmp_path, tell)


def test_an_engine_goes_on_when_no_other_can_be_started(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        node.build = "2"
        first = node.start(1)
        async with node.running() as agent:
            await until(lambda: node.brought == 1)
            await agent.barrier()
            assert agent.attached
            assert first.of(abi.Type.DRAIN) == []

    story(tmp_path, tell)


def test_another_is_brought_again_but_not_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told to leave as soon as it came would else be replaced as fast as the machine can."""
    monkeypatch.setattr(engines, "AGAIN_S", 0.2)

    async def tell(node: Node) -> None:
        first = node.start(1)

        async def bring() -> None:
            node.start(1 + node.brought)

        node.bring = bring
        async with node.running():
            began = asyncio.get_running_loop().time()
            await first.say_hello(leaving=True)
            await first.until(abi.Type.DRAIN)
            await node.fakes[1].say_hello(leaving=True)
            await node.fakes[1].until(abi.Type.DRAIN)
            assert node.brought == 2
            assert asyncio.get_running_loop().time() - began > 0.2

    story(tmp_path, tell)


def test_a_pod_that_left_is_idle_when_it_is_in_every_engine(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        first, second, third = (node.start(number) for number in (1, 2, 3))
        async with node.running() as agent:
            await second.until(abi.Type.DRAIN)
            agent.leave_pod(COOKIE)
            for fake in (first, third):
                await fake.until(abi.Type.LEAVE)
                await fake.say(wire.Message(abi.Type.IDLE, abi.PodRef(pod=COOKIE)))
                await agent.barrier()
                assert node.idle == []
            await second.die()
            await until(lambda: node.idle == [COOKIE])

    story(tmp_path, tell)


def test_an_agent_whose_attachment_a_living_engine_closes_was_superseded(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        node.start(1)
        await node.engines.attach()
        node.fakes[0].detach()
        with pytest.raises(Superseded, match="the engine closed it"):
            await node.engines.run()

    story(tmp_path, tell)


def test_an_engine_that_does_not_answer_is_named_until_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "INVENTORY_TIMEOUT", 0.05)

    async def tell(node: Node) -> None:
        fake = node.start(1)
        await node.engines.attach()
        fake.deaf = True
        with pytest.raises(TimeoutError, match=f"engine {fake.pid} does not answer"):
            await node.engines.inventory()
        assert node.engines.silent == [fake.pid]
        fake.deaf = False
        await node.engines.inventory()
        assert node.engines.silent == []

    story(tmp_path, tell)


def test_when_the_mesh_is_taken_off_every_engine_has_a_moment_left(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        fakes = [node.start(1), node.start(2)]
        await node.engines.attach()
        ending = asyncio.create_task(node.engines.end())
        for fake in fakes:
            (raw,) = await fake.until(abi.Type.DRAIN)
            assert abi.Drain.from_buffer_copy(raw).timeout_s == engines.LAST_S
        assert not ending.done()
        for fake in fakes:
            await fake.die()
        await ending

    story(tmp_path, tell)


def test_the_door_of_a_dead_engine_is_removed(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        dead = node.start(1)
        await dead.die()
        alive = node.start(2)
        await node.engines.attach()
        assert node.engines.pids == {alive.pid}

    story(tmp_path, tell)
    assert len(list(tmp_path.iterdir())) == 1
