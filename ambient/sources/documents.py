"""YAML (or JSON) text to manifests. Strict where YAML is loose: no duplicate keys, no dates, no surprises."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml

from ambient.sources import manifests
from ambient.sources.errors import BadManifest
from ambient.sources.manifests import Object, Ref


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What one file holds."""

    objects: tuple[tuple[Ref, Object], ...] = ()
    errors: tuple[BadManifest, ...] = ()
    notes: tuple[str, ...] = ()


def parse(name: str, content: bytes) -> Parsed:
    """Read a file's content. `name` is what errors call the file. Never raises for what is in it."""
    objects: list[tuple[Ref, Object]] = []
    errors: list[BadManifest] = []
    notes: list[str] = []
    first: dict[Ref, int] = {}
    documents, broken = _documents(name, content)
    for number, document in documents:
        for manifest in manifests.expand(document):
            found = manifests.translate(manifest)
            errors += [BadManifest(name, number, found.subject, p.path, p.expected, p.found) for p in found.problems]
            if found.note and not found.problems:
                notes.append(f"{name}: document {number}: {found.note}")
            if found.object is None:
                continue
            if (before := first.setdefault(found.ref, number)) != number or found.ref in {r for r, _ in objects}:
                errors.append(
                    BadManifest(
                        name, number, found.subject, "", "one object of this name", f"it in document {before} too"
                    )
                )
            objects.append((found.ref, found.object))
    return Parsed(objects=tuple(objects), errors=(*errors, *broken), notes=tuple(notes))


def _documents(name: str, content: bytes) -> tuple[list[tuple[int, object]], list[BadManifest]]:
    """The documents that are not empty, numbered from 1, up to the first that is no YAML."""
    found: list[tuple[int, object]] = []
    number = 0
    try:
        _check_depth(content)
    except yaml.YAMLError:
        pass  # said below, after what comes before it was read
    except RecursionError as error:
        return [], [BadManifest(name, 0, "", "", f"at most {DEPTH} levels of nesting", str(error))]
    try:
        loader = Loader(content)
        try:
            while loader.check_data():  # type: ignore[no-untyped-call]
                number += 1
                document = loader.get_data()
                if document is not None:
                    found.append((number, document))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        text = getattr(error, "problem", None) or str(error).partition("\n")[0]
        return found, [BadManifest(name, number or 1, "", line, "YAML", text)]
    return found, []


def _check_depth(content: bytes) -> None:
    depth = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise RecursionError("more" + (f", at line {event.start_mark.line + 1}" if event.start_mark else ""))
