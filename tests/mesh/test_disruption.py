"""Whatever happens to agent, engine and control plane under load: nothing is lost but what a dead engine carried."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from bench.disruption import events
from bench.disruption.scene import MEMBERS, PATHS, RATE, SAME_NODE, Scene, scene
from tests.mesh.cluster import Mesh

pytestmark = [pytest.mark.kernel, pytest.mark.alone]


@pytest.fixture(scope="module", name="scene")
def the_scene() -> Iterator[Scene]:
    with scene("disruption") as found:
        yield found


@pytest.fixture(scope="module")
def mesh(scene: Scene) -> Mesh:
    return scene.mesh


@pytest.mark.parametrize("event", events.EVENTS, ids=lambda event: event.name)
def test_what_is_lost_when(scene: Scene, event: events.Event) -> None:
    """See Outcome.missed for the goals. The records are complete, except a killed engine's."""
    outcome = events.measure(scene, event, members=MEMBERS, rate=RATE)
    print(f"\n{event.name}: {[dataclasses.asdict(tally) for tally in outcome.tallies.values()]}")
    assert outcome.missed() == []
    if not event.kills_connections:
        first = len(PATHS)  # connections that came before the load
        direct = scene.mesh.await_records(first + sum(load.opened for load in scene.loads.values()))
        assert direct >= 0.9 * scene.loads[SAME_NODE].opened, "those of one node but the first after each decision"
