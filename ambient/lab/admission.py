"""What may become of the cluster: manifests judged whole before anything is made, by the lab and by the mesh. Pure.

`ambient lab check`, `up` and `apply` say the same because they all ask here. Whatever is admitted, no agent refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ambient.lab import cluster, playable
from ambient.lab.cluster import Objects
from ambient.lab.errors import Refused
from ambient.lab.manifests import Key, identify
from ambient.model.mesh import MeshConfig
from ambient.sources.documents import Document, twice
from ambient.sources.errors import BadManifest, Note, Place
from ambient.sources.reading import Spot
from ambient.sources.review import review

THE_CLUSTER = Place("the cluster")  # where an object is written that no manifest of this change describes


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The cluster as it would be; a cluster that may be only if there are no errors."""

    objects: Objects
    given: Mapping[Key, Document]  # what the documents are about
    errors: tuple[BadManifest, ...]  # sorted
    notes: tuple[Note, ...]  # sorted


def judge(
    objects: Objects, documents: Iterable[Document], broken: Iterable[BadManifest] = (), *, new_uid: Callable[[], str]
) -> Admission:
    """What an apply would give. `broken`: errors that there are already.

    Fields first, then what objects mean to the cluster, then what they mean to each other: a later question is asked
    only when the answer to the earlier one makes sense.
    """
    errors, notes = list(broken), list[Note]()
    given: dict[Key, Document] = {}
    for document in documents:
        found = playable.look(document)
        errors += found.errors
        notes += found.notes
        if found.key is not None and (other := given.setdefault(found.key, document)) is not document:
            errors.append(twice(str(found.key), document.place, other.place))
    if not errors:
        objects, errors = cluster.applied(objects, given, new_uid=new_uid)
    if not errors:
        errors = contradictions(objects, given)
    return Admission(objects=objects, given=given, errors=tuple(sorted(set(errors))), notes=tuple(sorted(notes)))


def named(documents: Iterable[Document]) -> dict[Key, Place]:
    """What documents are about, as a delete needs it. Raises Refused."""
    errors: list[BadManifest] = []
    found: dict[Key, Place] = {}
    for document in documents:
        spot = Spot(document.manifest)
        key = identify(spot)
        errors += [document.place.wrong("", row.path, row.expected, row.found) for row in spot.problems]
        if key is not None:
            found.setdefault(key, document.place)
    refuse(errors)
    return found


def contradictions(objects: Objects, given: Mapping[Key, Document] | None = None) -> list[BadManifest]:
    """What the mesh has to say of the cluster; `given` lends its places to what it wrote."""
    places = {key: document.place for key, document in (given or {}).items()}
    documents = [Document(places.get(key, THE_CLUSTER), body) for key, body in objects.items()]
    return list(review(documents, mesh=MeshConfig()).errors)


def refuse(errors: Iterable[BadManifest]) -> None:
    """Raises Refused if there are any."""
    if texts := [str(error) for error in sorted(errors)]:
        raise Refused("\n".join(texts))
