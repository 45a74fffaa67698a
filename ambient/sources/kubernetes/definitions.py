"""Whether a kind that a CustomResourceDefinition defines is served, and in which version. No objects of the kind.

That a cluster lacks one of our kinds is normal. That a kind is gone is believed of its definition only: a server that
starts can say 404, and policies must not vanish for that.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from ambient.sources.kubernetes.client import Client
from ambient.sources.kubernetes.follow import Follower, Found, Happened, Listed, Started, Trouble, Watching
from ambient.sources.kubernetes.kinds import Resource, definition_of
from ambient.sources.kubernetes.wire import Change, Raw


@dataclass(frozen=True, slots=True)
class Served:
    version: str  # to read the kind in; empty: the cluster has no such kind
    problem: str = ""  # it has, but in no version that we read


async def served(
    client: Client, resource: Resource, chance: Callable[[], float] = random.random
) -> AsyncGenerator[Served | Trouble | Watching, None]:
    """How the kind is served, as soon as it is known and at each change. Never ends."""
    definition: Raw | None = None
    told: Served | None = None
    async with contextlib.aclosing(Follower(client, definition_of(resource), "v1", chance).items()) as items:
        async for item in items:
            match item:
                case Trouble() | Watching():
                    yield item
                case Started():
                    definition = None
                case Found(objects):
                    definition = objects[-1]
                case Happened(events):
                    definition = None if events[-1].change is Change.DELETED else events[-1].object
            if isinstance(item, Listed | Happened) and (now := how_served(resource, definition)) != told:
                told = now
                yield now


def how_served(resource: Resource, definition: Raw | None) -> Served:
    if definition is None or not _established(definition):
        return Served("")
    there = [str(one.get("name")) for one in _inside(definition, "spec", "versions") if one.get("served")]
    for version in resource.versions:
        if version in there:
            return Served(version)
    return Served("", f"served as {', '.join(there) or 'nothing'}, and read as {' or '.join(resource.versions)} only")


def _established(definition: Raw) -> bool:
    conditions = _inside(definition, "status", "conditions")
    return any(one.get("type") == "Established" and one.get("status") == "True" for one in conditions)


def _inside(definition: Raw, *path: str) -> list[dict[str, Any]]:
    found: Any = definition
    for key in path:
        found = (found or {}).get(key)
    return found or []
