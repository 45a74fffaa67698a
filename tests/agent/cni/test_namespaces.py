"""The file that the plugin decides by says of each namespace whether any pod of it is the mesh's business."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.agent.cni.namespaces import Namespaces
from ambient.model.mesh import Namespace
from ambient.model.world import World, diff

from .builders import a_pod, a_world


class Following:
    """A node's Namespaces that is told of one World after the other."""

    def __init__(self, folder: Path) -> None:
        self.namespaces, self.path = Namespaces(folder), folder / "namespaces"
        self.world = World.build()

    def tell(self, world: World) -> str:
        self.namespaces.revise(world, diff(self.world, world))
        self.world = world
        return self.path.read_text()


@pytest.fixture
def following(tmp_path: Path) -> Following:
    return Following(tmp_path)


def test_a_line_for_each_namespace_sorted(following: Following) -> None:
    assert following.tell(a_world()) == "ambient-cni 1\noutside elsewhere\nmesh shop\n"


def test_a_pods_own_label_makes_its_namespace_the_meshs_for_as_long(following: Following) -> None:
    own = a_pod("own", namespace="elsewhere")
    assert "mesh elsewhere\n" in following.tell(a_world(own))
    assert not following.namespaces.is_outside("elsewhere")
    assert "outside elsewhere\n" in following.tell(a_world())
    assert following.namespaces.is_outside("elsewhere")


def test_a_pod_that_is_not_enrolled_changes_nothing(following: Following) -> None:
    following.tell(a_world())
    before = following.path.stat().st_ino
    following.tell(a_world(a_pod("free", namespace="elsewhere", enrolled=False)))
    assert following.path.stat().st_ino == before, "it was not even written"


def test_a_label_on_the_namespace_counts_at_once(following: Following) -> None:
    following.tell(a_world())
    world = following.world.replace([Namespace(name="elsewhere", enrolled=True)], revision="2")
    assert "mesh elsewhere\n" in following.tell(world)


def test_an_unknown_namespace_is_not_outside(following: Following) -> None:
    following.tell(a_world(a_pod("free", namespace="nowhere", enrolled=False)))
    assert not following.namespaces.is_outside("nowhere")
    assert "nowhere" not in following.path.read_text()


def test_a_namespace_that_is_gone_is_unknown(following: Following) -> None:
    following.tell(a_world())
    gone = following.world.replace(removals=[(Namespace, "elsewhere")], revision="2")
    assert following.tell(gone) == "ambient-cni 1\nmesh shop\n"


def test_an_empty_world_is_written_too(following: Following) -> None:
    assert following.tell(World.build()) == "ambient-cni 1\n"


NAMES = st.sampled_from(["a", "b", "c"])
NAMESPACES = st.dictionaries(NAMES, st.booleans())
PODS = st.dictionaries(st.tuples(NAMES, st.sampled_from(["x", "y"])), st.booleans())


def built(namespaces: dict[str, bool], pods: dict[tuple[str, str], bool]) -> World:
    return World.build(
        namespaces=[Namespace(name=name, enrolled=enrolled) for name, enrolled in namespaces.items()],
        workloads=[a_pod(name, namespace=where, enrolled=enrolled) for (where, name), enrolled in pods.items()],
    )


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(NAMESPACES, PODS), min_size=1, max_size=5))
def test_following_step_by_step_is_as_good_as_being_told_the_last(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, Any]]
) -> None:
    following, afresh = (Following(tmp_path_factory.mktemp("n")) for _ in range(2))
    for namespaces, pods in steps:
        text = following.tell(built(namespaces, pods))
    assert text == afresh.tell(built(*steps[-1]))
    namespaces, pods = steps[-1]
    for name in namespaces:
        inside = namespaces[name] or any(enrolled for (where, _), enrolled in pods.items() if where == name)
        assert following.namespaces.is_outside(name) != inside
