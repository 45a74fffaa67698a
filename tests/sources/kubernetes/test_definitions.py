"""Whether a kind is served, and how."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from ambient.sources.kubernetes import kinds
from ambient.sources.kubernetes.definitions import Served, how_served, served
from ambient.sources.kubernetes.follow import Trouble, Watching
from tests.identity import virtual

from .script import Script, a_failure, a_list, a_watch, an_event

ISTIOS = kinds.POLICIES[2]
OURS = kinds.POLICIES[0]


def a_definition(*versions: str, established: str = "True", version: str = "1", unserved: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": ISTIOS.name, "resourceVersion": version},
        "spec": {"versions": [{"name": v, "served": v != unserved, "schema": {}} for v in versions]},
        "status": {"conditions": [{"type": "Established", "status": established}]},
    }


HOW = {
    "not there": (None, Served("")),
    "the preferred version": (a_definition("v1beta1", "v1"), Served("v1")),
    "the only one": (a_definition("v1beta1"), Served("v1beta1")),
    "the only one that is served": (a_definition("v1", "v1beta1", unserved="v1"), Served("v1beta1")),
    "not yet": (a_definition("v1", established="False"), Served("")),
    "no status yet": ({"metadata": {"name": ISTIOS.name}, "spec": {"versions": [{"name": "v1"}]}}, Served("")),
    "in the future": (a_definition("v2"), Served("", "served as v2, and read as v1 or v1beta1 only")),
    "not served": (a_definition("v1", unserved="v1"), Served("", "served as nothing, and read as v1 or v1beta1 only")),
}


@pytest.mark.parametrize(("definition", "how"), HOW.values(), ids=HOW.keys())
def test_a_kind_is_served_as_its_definition_says(definition: dict[str, Any] | None, how: Served) -> None:
    assert how_served(ISTIOS, definition) == how


def test_the_versions_of_our_own_group_are_ours() -> None:
    assert how_served(OURS, a_definition("v1alpha1", "v1")) == Served("v1alpha1")


def test_a_definition_is_followed_by_its_name_and_every_change_of_it_is_told() -> None:
    watch = a_watch(
        *(an_event("ADDED", a_definition("v1", established="False", version="101")), 1.0),
        *(an_event("MODIFIED", a_definition("v1", version="102")), 1.0),
        *(an_event("MODIFIED", a_definition("v1", "v1beta1", version="103")), 1.0),
        *(an_event("DELETED", a_definition("v1", version="104")), 1.0),
    )
    answers = [a_list(), watch, a_watch(2.0), a_failure(404), a_list(a_definition("v1beta1")), a_watch(2.0)]
    script = Script({"/apis/apiextensions.k8s.io/v1/customresourcedefinitions": [*answers]})
    told: list[Any] = []

    async def run() -> None:
        async with contextlib.aclosing(served(script.client(), ISTIOS, lambda: 0.0)) as items:
            async for item in items:
                told.append(item)
                if len(told) == 8:
                    return

    virtual.run(run())
    assert all(params["fieldSelector"] == "metadata.name=" + ISTIOS.name for params in script.asked)
    trouble = Trouble("https://api.test: 404 no")
    expected = [Served(""), Watching(), Served("v1"), Served(""), Watching(), trouble, Served("v1beta1"), Watching()]
    assert told == expected
