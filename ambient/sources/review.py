"""Manifests judged where they lie, before anybody acts on them: what `ambient check -f` and the lab say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ambient.model.mesh import MeshConfig
from ambient.model.world import World
from ambient.sources.documents import Document, Found, translate
from ambient.sources.errors import BadManifest, Note
from ambient.sources.inventory import Inventory
from ambient.sources.manifests import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    world: World  # of what could be read; whole only if there are no errors
    errors: tuple[BadManifest, ...] = ()  # sorted
    notes: tuple[Note, ...] = ()  # sorted


def review(documents: Iterable[Document], broken: Iterable[BadManifest] = (), *, mesh: MeshConfig) -> Review:
    """The World that these documents describe together, and all that is wrong. `broken`: errors that there are already.

    Whether objects contradict each other is only asked when each of them is well.
    """
    parsed = translate(documents, broken)
    places = {found.ref: found for found in parsed.objects}
    objects = [(ref, found.object) for ref, found in places.items()]
    world = Inventory(World(mesh=mesh)).apply(objects, (), revision="").world
    errors = parsed.errors or contradictions(world, places.get)
    return Review(world=world, errors=tuple(sorted(set(errors))), notes=tuple(sorted(parsed.notes)))


def contradictions(world: World, find: Callable[[Ref], Found | None]) -> list[BadManifest]:
    """What contradicts itself, with the place of each object as `find` knows it."""
    errors = []
    for row in world.problems():
        found = find(Ref(row.kind, row.key))
        assert found is not None, row  # the World holds nothing that was not read
        errors.append(found.place.wrong(f"{row.kind} {row.key}", row.field, row.expected, row.found))
    return errors
