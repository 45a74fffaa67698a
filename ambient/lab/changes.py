"""What a change did, as kubectl tells it: a line for each object. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ambient.lab.cluster import Objects
from ambient.lab.manifests import KINDS, Key


def applied(before: Objects, after: Objects, given: Iterable[Key]) -> list[str]:
    """`given`: what was asked for, in that order."""
    return [f"{name(key)} {_became(before.get(key), after[key])}" for key in given]


def deleted(before: Objects, after: Objects) -> list[str]:
    """What went along with a namespace or a node, too: first those."""
    gone = sorted(before.keys() - after.keys(), key=lambda key: (KINDS.index(key.kind), key))
    return [f"{name(key)} deleted" for key in gone]


def labelled(before: Objects, after: Objects, key: Key) -> list[str]:
    return [f"{name(key)} {'unchanged' if _same(before[key], after[key]) else 'labeled'}"]


def name(key: Key) -> str:
    """As `ambient lab label` takes it: pod/NAMESPACE/NAME."""
    return "/".join(part for part in (key.kind.lower(), key.namespace, key.name) if part)


def _became(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    if old is None:
        return "created"
    return "unchanged" if _same(old, new) else "configured"


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """To whoever wrote it: status and uid are the lab's."""
    return _written(old) == _written(new)


def _written(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"labels": {}} | {field: value for field, value in body["metadata"].items() if field != "uid"}
    return {**{field: value for field, value in body.items() if field != "status"}, "metadata": metadata}
