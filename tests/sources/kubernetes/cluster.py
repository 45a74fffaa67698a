"""An API server in memory: objects, versions, pages, watches, bookmarks and forgetting; faults on demand.

It answers as a transport, so that its time is the event loop's. It serves what was put into it; definitions are objects
like others.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from ambient.sources.kubernetes import kinds
from ambient.sources.kubernetes.client import Client
from ambient.sources.kubernetes.kinds import Resource

from .script import CONFIG, GONE, UNREACHABLE, Answer, Stream, a_failure

Object = dict[str, Any]
DEFINITIONS = kinds.definition_of(kinds.POLICIES[0])
PATHS = {r.path(v): r for r in (*kinds.CORE, *kinds.POLICIES, DEFINITIONS) for v in r.versions}
RESOURCES = {(r.api_version(v), r.kind): r for r in PATHS.values() for v in r.versions}


@dataclass(frozen=True)
class Entry:
    """One change: what was, what is, and when."""

    version: int
    name: str  # of the resource
    before: Object | None
    after: Object | None


@dataclass
class Cluster(httpx2.AsyncBaseTransport):
    page: int = 1000  # a server may give less than was asked for
    cut: int = 0  # bytes in a piece of a stream; 0: an event
    repeat: bool = False  # every event twice
    reachable: bool = True
    failing: dict[str, int] = field(default_factory=dict)  # resource name -> what it is answered with
    version: int = 100
    objects: dict[str, dict[str, Object]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    _log: list[Entry] = field(default_factory=list)
    _forgotten: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _cuts: int = 0  # how often connections were cut
    _lists: dict[str, tuple[list[Object], int]] = field(default_factory=dict)

    def client(self) -> Client:
        return Client(CONFIG, transport=self)

    # What a user does

    def put(self, *manifests: Object) -> None:
        for manifest in manifests:
            self._change(manifest, manifest)

    def delete(self, *manifests: Object) -> None:
        for manifest in manifests:
            self._change(manifest, None)

    def define(self, *groups: str, established: str = "True") -> None:
        for resource in kinds.POLICIES:
            if resource.group in groups:
                self.put(a_definition(resource, established=established))

    def undefine(self, group: str) -> None:
        """As a cluster does: the objects first."""
        for resource in kinds.POLICIES:
            if resource.group == group:
                self.delete(*self.objects.get(resource.name, {}).values())
                self.delete(a_definition(resource))

    def _change(self, manifest: Object, after: Object | None) -> None:
        resource = RESOURCES[manifest["apiVersion"], manifest["kind"]]
        metadata = manifest["metadata"]
        inside = resource.kind not in ("Namespace", "Node", "CustomResourceDefinition")
        metadata = ({"namespace": "default"} if inside else {}) | metadata
        key = f"{metadata.get('namespace', '')}/{metadata['name']}"
        table = self.objects.setdefault(resource.name, {})
        before = table.get(key)
        self.version += 1
        stored = {**manifest, "metadata": metadata | {"resourceVersion": str(self.version)}}
        if after is None:
            table.pop(key, None)
        else:
            table[key] = stored
        self._log.append(Entry(self.version, resource.name, before, None if after is None else stored))
        self._wake()

    # What a cluster suffers

    def cut_connections(self) -> None:
        """All watches break, in the middle of an event if one is on its way."""
        self._cuts += 1
        self._wake()

    def forget(self) -> None:
        """No watch can go on from what was before now, nor a list."""
        self._forgotten = self.version
        self._lists.clear()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # What it answers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not self.reachable:
            raise UNREACHABLE
        params = dict(request.url.params)
        resource = PATHS.get(request.url.path)
        self.asked.append(f"{'watch' if params.get('watch') else 'list'} {resource.name if resource else '?'}")
        if resource and (code := self.failing.get(resource.name)):
            return self._answer(a_failure(code, f"{resource.name} is forbidden"))
        if resource is None or not self._served(resource):
            return self._answer(a_failure(404, "the server could not find the requested resource"))
        if params.get("watch"):
            return self._watch(resource, params)
        return self._answer(self._list(resource, params))

    def _served(self, resource: Resource) -> bool:
        return resource not in kinds.POLICIES or f"/{resource.name}" in self.objects.get(DEFINITIONS.name, {})

    def _answer(self, answer: Answer) -> httpx2.Response:
        body = b"".join(piece for piece in answer.pieces if isinstance(piece, bytes))
        return httpx2.Response(answer.status, headers=answer.headers, content=body)

    def _list(self, resource: Resource, params: dict[str, str]) -> Answer:
        token = params.get("continue", "")
        if not token:
            found = [one for _, one in sorted(self.objects.get(resource.name, {}).items())]
            self._lists[token := f"{self.version}:{next(TOKENS)}:0"] = (
                [one for one in found if selected(one, params.get("fieldSelector", ""))],
                self.version,
            )
        if token not in self._lists:
            return a_failure(410, "The provided continue parameter is too old")
        objects, version = self._lists.pop(token)
        size = min(self.page, int(params.get("limit", len(objects) + 1)))
        more = f"{token}+" if objects[size:] else ""
        if more:
            self._lists[more] = (objects[size:], version)
        items = [{key: value for key, value in one.items() if key not in ("apiVersion", "kind")} for one in objects]
        metadata = {"resourceVersion": str(version), "continue": more}
        return Answer([json.dumps({"kind": "List", "metadata": metadata, "items": items[:size]}).encode()])

    def _watch(self, resource: Resource, params: dict[str, str]) -> httpx2.Response:
        start = int(params["resourceVersion"])
        if start < self._forgotten:
            return self._answer(a_failure(410, "too old resource version"))
        ends = asyncio.get_running_loop().time() + int(params["timeoutSeconds"])
        events = self._events(resource, params.get("fieldSelector", ""), start, ends)
        return httpx2.Response(200, stream=Stream(self._pieces(events)))

    async def _pieces(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        cuts = self._cuts
        async for event in events:
            size = self.cut or len(event)
            for _ in range(2 if self.repeat else 1):
                for start in range(0, len(event), size):
                    if self._cuts != cuts:
                        raise GONE
                    yield event[start : start + size]
        if self._cuts != cuts:
            raise GONE

    async def _events(self, resource: Resource, fields: str, place: int, ends: float) -> AsyncIterator[bytes]:
        cuts = self._cuts
        while self._cuts == cuts:
            changed = self._changed
            for entry in [entry for entry in self._log if entry.version > place and entry.name == resource.name]:
                place = entry.version
                if event := event_of(entry, fields):
                    yield event
            left = ends - asyncio.get_running_loop().time()
            if left <= 0:
                metadata = {"resourceVersion": str(max(place, self.version))}
                yield line("BOOKMARK", {"kind": resource.kind, "metadata": metadata})
                return
            try:
                await asyncio.wait_for(changed.wait(), left)
            except TimeoutError:
                continue


TOKENS = itertools.count()


def line(change: str, found: Object) -> bytes:
    return json.dumps({"type": change, "object": found}, ensure_ascii=False).encode() + b"\n"


def event_of(entry: Entry, fields: str) -> bytes:
    """As a selecting watch sees it: what is not selected any more is deleted."""
    before = entry.before if entry.before and selected(entry.before, fields) else None
    after = entry.after if entry.after and selected(entry.after, fields) else None
    if after:
        return line("MODIFIED" if before else "ADDED", after)
    if not before:
        return b""
    metadata = before["metadata"] | {"resourceVersion": str(entry.version)}
    return line("DELETED", before | {"metadata": metadata})


def selected(found: Object, fields: str) -> bool:
    if fields.startswith("metadata.name="):
        return bool(found["metadata"]["name"] == fields.removeprefix("metadata.name="))
    return not fields or found.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def a_definition(resource: Resource, established: str = "True") -> Object:
    return {
        "apiVersion": DEFINITIONS.api_version("v1"),
        "kind": DEFINITIONS.kind,
        "metadata": {"name": resource.name},
        "spec": {"versions": [{"name": version, "served": True} for version in resource.versions]},
        "status": {"conditions": [{"type": "Established", "status": established}]},
    }
