"""The node's sandboxes outlive their agent, as files; descriptors are closed when they are over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.agent.cni.sandboxes import Sandboxes
from ambient.capture.netns import PodNetns

from .builders import FIRST, SECOND, a_pod, a_world

WORLD = a_world(a_pod())
WEB = WORLD.workloads["shop/web"]


def space(cookie: int) -> PodNetns:
    return PodNetns(cookie, "nowhere", os.open("/dev/null", os.O_RDONLY), cookie)


def is_open(netns: PodNetns) -> bool:
    try:
        os.fstat(netns.fd)
    except OSError:
        return False
    return True


@pytest.fixture
def sandboxes(tmp_path: Path) -> Iterator[Sandboxes]:
    made = started(tmp_path)
    yield made
    made.close()


def started(folder: Path, *captured: int) -> Sandboxes:
    made = Sandboxes(folder / "sandboxes")
    made.restore(captured, space)
    return made


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "sandboxes").iterdir())


def test_an_arrival_is_written_down_and_its_namespace_kept(sandboxes: Sandboxes, tmp_path: Path) -> None:
    where = space(7)
    sandboxes.arrive("c1", where, (FIRST,), WEB)
    assert sandboxes.netns_of("uid-web") is where
    assert sandboxes.overlay(WORLD).workloads["shop/web"].addresses == (FIRST,)
    assert (files(tmp_path), os.stat(tmp_path / "sandboxes" / "c1").st_mode & 0o777) == (["c1"], 0o600)


def test_the_next_agent_knows_what_this_one_wrote(sandboxes: Sandboxes, tmp_path: Path) -> None:
    sandboxes.arrive("c1", space(7), (FIRST,), WEB)
    following = started(tmp_path, 7, 8)
    assert list(following) == list(sandboxes)
    found = following.netns_of("uid-web")
    assert found is not None
    assert found.cookie == 7
    following.close()


def test_what_is_not_captured_any_more_is_not_taken_over(sandboxes: Sandboxes, tmp_path: Path) -> None:
    sandboxes.arrive("c1", space(7), (FIRST,), WEB)
    (tmp_path / "sandboxes" / "c2").write_text("{}")
    (tmp_path / "sandboxes" / "c3").write_text("of another version")
    (tmp_path / "sandboxes" / ".ambient-x.tmp").write_text("half")
    assert list(started(tmp_path, 8)) == []
    assert files(tmp_path) == []


def test_a_namespace_that_cannot_be_opened_again_is_looked_for_elsewhere(sandboxes: Sandboxes, tmp_path: Path) -> None:
    sandboxes.arrive("c1", space(7), (FIRST,), WEB)
    following = Sandboxes(tmp_path / "sandboxes")

    def lost(cookie: int) -> PodNetns:
        raise KeyError(cookie)

    following.restore([7], lost)
    assert following.netns_of("uid-web") is None
    assert following.overlay(WORLD).workloads["shop/web"].addresses == (FIRST,), "its address is known all the same"


def test_a_departure_closes_and_is_said_once(sandboxes: Sandboxes, tmp_path: Path) -> None:
    where = space(7)
    sandboxes.arrive("c1", where, (FIRST,), WEB)
    assert [sandboxes.depart(each, WORLD) for each in ("c2", "c1", "c1")] == [False, True, False]
    assert (is_open(where), files(tmp_path), sandboxes.netns_of("uid-web")) == (False, [], None)


def test_a_departure_before_the_first_world_is_one(sandboxes: Sandboxes) -> None:
    sandboxes.arrive("c1", space(7), (FIRST,), WEB)
    assert sandboxes.depart("c1", None)
    assert sandboxes.overlay(a_world(a_pod("web", FIRST))).workloads["shop/web"].addresses == ()


def test_a_second_sandbox_replaces_the_first_whose_end_comes_late(sandboxes: Sandboxes, tmp_path: Path) -> None:
    first, second = space(7), space(8)
    sandboxes.arrive("c1", first, (FIRST,), WEB)
    sandboxes.arrive("c2", second, (SECOND,), WEB)
    assert (is_open(first), is_open(second), files(tmp_path)) == (False, True, ["c2"])
    assert not sandboxes.depart("c1", WORLD)
    assert sandboxes.netns_of("uid-web") is second


def test_an_add_that_is_repeated_is_one(sandboxes: Sandboxes, tmp_path: Path) -> None:
    sandboxes.arrive("c1", space(7), (FIRST,), WEB)
    again = space(7)
    sandboxes.arrive("c1", again, (FIRST,), WEB)
    assert (sandboxes.netns_of("uid-web"), is_open(again), files(tmp_path)) == (again, True, ["c1"])


def test_a_pod_that_the_world_knows_no_more_is_forgotten(sandboxes: Sandboxes, tmp_path: Path) -> None:
    where = space(7)
    sandboxes.arrive("c1", where, (FIRST,), WEB)
    sandboxes.overlay(a_world())
    assert (list(sandboxes), is_open(where), files(tmp_path)) == ([], False, [])


def test_closing_keeps_the_files_for_the_next_agent_if_there_is_to_be_one(sandboxes: Sandboxes, tmp_path: Path) -> None:
    where = space(7)
    sandboxes.arrive("c1", where, (FIRST,), WEB)
    sandboxes.close()
    assert (is_open(where), files(tmp_path)) == (False, ["c1"])
    sandboxes.close(forget=True)
    assert not (tmp_path / "sandboxes").exists()
