"""What the mesh has to say about a change before it is made: its own parser and its own consistency check. Pure.

The lab would otherwise accept what every agent then refuses, and the user would learn of it from a log.
"""

from __future__ import annotations

from collections.abc import Iterable

from ambient.lab.cluster import Objects
from ambient.lab.errors import Refused
from ambient.lab.manifests import Document, key_of
from ambient.model.mesh import MeshConfig
from ambient.model.world import World
from ambient.sources import manifests
from ambient.sources.inventory import Inventory


def check(objects: Objects, documents: Iterable[Document]) -> None:
    """Raises Refused with every problem; `documents` lends its places to what it wrote."""
    written = {key_of(document): document.where for document in documents}
    problems: list[str] = []
    found: list[tuple[manifests.Ref, manifests.Object]] = []
    for key, body in objects.items():
        translated = manifests.translate(body)
        problems += [
            f"{written.get(key, 'the cluster')}: {key}: {row.path}: expected {row.expected}, found {row.found}"
            for row in translated.problems
        ]
        if translated.object is not None:
            found.append((translated.ref, translated.object))
    if not problems:
        problems = Inventory(World(mesh=MeshConfig())).apply(found, (), revision="candidate").world.problems()
    if problems:
        raise Refused("\n".join(problems))
