"""Engines of other versions: spoken with as far as they know what is said, or left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.dataplane import abi, wire

from .several import COOKIE, Node, a_pod, story, until


@pytest.mark.parametrize("versions", [(3, abi.ABI), (abi.ABI, 99), (99, 3)], ids=["up", "to a later one", "down"])
def test_an_engine_of_another_version_is_given_everything_or_drains_like_any_other(
    tmp_path: Path, versions: tuple[int, int]
) -> None:
    async def tell(node: Node) -> None:
        first = node.start(1, version=versions[0])
        with a_pod() as pod:
            async with node.running() as agent:
                agent.add_pod(pod)
                await first.until(abi.Type.LISTEN)
                second = node.start(2, version=versions[1])
                await second.until(abi.Type.LISTEN)
                (raw,) = await first.until(abi.Type.DRAIN)
                assert abi.Drain.from_buffer_copy(raw).timeout_s == 9
                assert [each["state"] for each in agent.status()] == ["draining", "serving"]
                agent.send(wire.Message(abi.Type.CUT, abi.Cut(answer=7)))
                await first.until(abi.Type.CUT)
                agent.leave_pod(COOKIE)
                for fake in (first, second):
                    await fake.until(abi.Type.LEAVE)
                    await fake.say(wire.Message(abi.Type.IDLE, abi.PodRef(pod=COOKIE)))
                await until(lambda: node.idle == [COOKIE])
        for fake, version in zip((first, second), versions, strict=True):
            said = [(abi.Speaks.from_buffer_copy(raw).abi, fake.told[0][0]) for raw in fake.of(abi.Type.SPEAKS)]
            assert said == ([(abi.ABI, abi.Type.SPEAKS)] if version > 3 else []), "before all else, to who knows it"

    story(tmp_path, tell)


def test_messages_of_a_later_version_are_skipped(tmp_path: Path) -> None:
    async def tell(node: Node) -> None:
        later = node.start(1, version=99)
        async with node.running() as agent:
            await later.say_raw(bytes(abi.Head(type=40, size=24, body=16)) + bytes(16))
            await agent.barrier()
            assert agent.attached

    story(tmp_path, tell)


@pytest.mark.parametrize("versions", [{"version": 2}, {"version": 99, "oldest": abi.ABI + 1}], ids=["older", "younger"])
def test_one_that_speaks_no_version_of_ours_is_left_alone(tmp_path: Path, versions: dict[str, int]) -> None:
    async def tell(node: Node) -> None:
        first = node.start(1)
        async with node.running() as agent:
            await agent.barrier()
            other = node.start(2, **versions)
            await until(lambda: other._agent is not None)
            await agent.barrier()
            assert agent.pid == first.pid
            assert (first.of(abi.Type.DRAIN), other.told) == ([], [])

    story(tmp_path, tell)
