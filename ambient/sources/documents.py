"""YAML (or JSON) text to manifests. Strict where YAML is loose: no duplicate keys, no dates, no surprises."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ambient.sources import manifests, settings
from ambient.sources.errors import BadManifest, Note, Place
from ambient.sources.manifests import Object, Ref
from ambient.sources.reading import Spot


class Loader(yaml.CSafeLoader):
    """Safe YAML in which the same key twice is an error and a date is text, as JSON has it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} twice", key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


DEPTH = 100  # levels; libyaml's binding recurses without a limit of its own and would crash the process


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest as it is written: nothing is known of it yet."""

    place: Place
    manifest: object


@dataclass(frozen=True, slots=True)
class Found:
    """One manifest as the mesh understands it."""

    ref: Ref
    object: Object
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What one file, or several, hold."""

    objects: tuple[Found, ...] = ()
    errors: tuple[BadManifest, ...] = ()
    notes: tuple[Note, ...] = ()


def parse(name: str, content: bytes) -> Parsed:
    """Read and translate a file's content. `name` is what errors call the file. Never raises for what is in it."""
    documents, broken = read(name, content)
    return translate(documents, broken)


def translate(documents: Iterable[Document], broken: Iterable[BadManifest] = ()) -> Parsed:
    """What the mesh has to say of each document. `broken`: errors that there are already."""
    first: dict[Ref, Found] = {}
    errors: list[BadManifest] = []
    notes: list[Note] = []
    for document in documents:
        place, known = document.place, manifests.translate(document.manifest)
        errors += [place.wrong(known.subject, row.path, row.expected, row.found) for row in known.problems]
        if known.note and not known.problems:
            notes.append(place.note(known.subject, "", known.note))
        notes += [place.note(known.subject, *note) for note in settings.unread(document.manifest)]
        if known.object is None:
            continue
        found = Found(known.ref, known.object, place)
        if (other := first.setdefault(known.ref, found)) is not found:
            errors.append(twice(known.subject, place, other.place))
    return Parsed(objects=tuple(first.values()), errors=(*errors, *broken), notes=tuple(notes))


def twice(subject: str, place: Place, *others: Place) -> BadManifest:
    written = ", ".join(f"document {other.document}" if other.file == place.file else str(other) for other in others)
    return place.wrong(subject, "", "one definition of this object", f"it in {written} too")


def read(name: str, content: bytes) -> tuple[list[Document], list[BadManifest]]:
    """The documents that are not empty, Lists opened, up to the first that is no YAML."""
    found: list[Document] = []
    errors: list[BadManifest] = []
    number = 0
    try:
        _check_depth(content)
    except yaml.YAMLError:
        pass  # said below, after what comes before it was read
    except RecursionError as error:
        return [], [Place(name).wrong("", "", f"at most {DEPTH} levels of nesting", str(error))]
    try:
        loader = Loader(content)
        try:
            while loader.check_data():  # type: ignore[no-untyped-call]
                number += 1
                document = loader.get_data()
                if document is not None:
                    found += _opened(Document(Place(name, number), document), errors)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        text = (getattr(error, "problem", None) or str(error).partition("\n")[0]).removeprefix("found ")
        errors.append(Place(name, number or 1).wrong("", line, "YAML", text))
    return found, errors


def _opened(document: Document, errors: list[BadManifest]) -> Iterator[Document]:
    """The document, or what is in it if it is a List."""
    place, body = document.place, document.manifest
    if not isinstance(body, Mapping) or (body.get("apiVersion"), body.get("kind")) != ("v1", "List"):
        yield document
        return
    items = Spot(body).get("items")
    for item in items.items():
        yield from _opened(Document(Place(place.file, place.document, place.within(item.path)), item.value), errors)
    errors += [place.wrong("List", row.path, row.expected, row.found) for row in items.problems]


def _check_depth(content: bytes) -> None:
    depth = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise RecursionError("more" + (f", at line {event.start_mark.line + 1}" if event.start_mark else ""))
