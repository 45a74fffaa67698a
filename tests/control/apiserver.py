"""A Kubernetes API server in miniature, at the level of HTTP: what lightkube sends to it and gets from it is JSON.

Objects of any kind, optimistic concurrency, watches of one object, merge patches and server-side apply; and whatever
trouble a test orders. In memory and without sockets, so that it works in virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import httpx2
import lightkube
from lightkube.config.kubeconfig import KubeConfig

from ambient.control.api import LightkubeApi

CONFIG = KubeConfig.from_dict(
    {
        "current-context": "api",
        "contexts": [{"name": "api", "context": {"cluster": "api", "user": "us"}}],
        "clusters": [{"name": "api", "cluster": {"server": "http://api"}}],
        "users": [{"name": "us", "user": {"token": "ours"}}],
    }
).get()
Json = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name


@dataclass(slots=True, eq=False)
class Trouble:
    """What becomes of requests of one kind instead of what should."""

    method: str
    plural: str
    status: int = 0  # answered with; 0: the connection breaks
    done_first: bool = False  # it happens, only the answer is lost
    gate: asyncio.Event | None = None  # nothing happens until it is open
    times: int = 1 << 30
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class _Refused(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason}
        self.body["message"] = message


@dataclass(frozen=True, slots=True)
class _Path:
    plural: str
    namespace: str
    name: str
    subresource: str


class ApiServer(httpx2.AsyncBaseTransport):
    def __init__(self, now: Callable[[], str] = lambda: "2026-01-01T00:00:00Z") -> None:
        self.objects: dict[Key, Json] = {}
        self.requests: list[str] = []  # "PUT secrets ambient-system/ambient-ca"
        self.reviews: list[Json] = []
        self.review: Callable[[Json], Json] = lambda _: {"authenticated": False, "error": "no such token"}
        self.troubles: list[Trouble] = []
        self.offline = False
        self._now = now
        self._version = 100
        self._watches: dict[Key, list[asyncio.Queue[Json | None]]] = {}
        self._history: list[tuple[int, Key, Json]] = []

    def api(self, link: Link | None = None) -> LightkubeApi:
        return LightkubeApi(lightkube.AsyncClient(CONFIG, transport=link or self, trust_env=False))

    # What tests do

    def put(self, plural: str, obj: Json) -> Json:
        """As if somebody else had written it."""
        metadata = obj["metadata"]
        key = plural, metadata.get("namespace", ""), metadata["name"]
        if key not in self.objects:
            return self._create(key, deepcopy(obj))
        return self._store(
            key, {**self.objects[key], **deepcopy(obj), "metadata": self.objects[key]["metadata"] | metadata}
        )

    def delete(self, plural: str, namespace: str, name: str) -> None:
        key = plural, namespace, name
        gone = self.objects.pop(key)
        self._tell(key, "DELETED", gone)

    def get(self, plural: str, namespace: str, name: str) -> Json:
        return self.objects[plural, namespace, name]

    def end_watches(self) -> None:
        """As a server does that restarts."""
        for queues in self._watches.values():
            for queue in queues:
                queue.put_nowait(None)

    def order(self, method: str, plural: str, **trouble: Any) -> Trouble:
        ordered = Trouble(method, plural, **trouble)
        self.troubles.append(ordered)
        return ordered

    @contextlib.contextmanager
    def trouble(self, method: str, plural: str, **what: Any) -> Iterator[Trouble]:
        """While the block lasts."""
        ordered = self.order(method, plural, **what)
        try:
            yield ordered
        finally:
            self.troubles.remove(ordered)

    def count(self, start: str) -> int:
        return sum(request.startswith(start) for request in self.requests)

    # HTTP

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.offline:
            raise httpx2.ConnectError("connection refused", request=request)
        path = _parse(request.url.path)
        method = "WATCH" if request.url.params.get("watch") else request.method
        self.requests.append(
            f"{method} {path.plural} {path.namespace}/{path.name}" + (f"/{path.subresource}" * bool(path.subresource))
        )
        trouble = next((t for t in self.troubles if t.method == method and t.plural == path.plural and t.times), None)
        if trouble is not None:
            trouble.times -= 1
        try:
            if trouble is not None and not trouble.done_first:
                await self._suffer(trouble, request)
            if method == "WATCH":
                return self._watch(path, request)
            body = json.loads(request.content) if request.content else {}
            answer = self._act(method, path, body, request)
            if trouble is not None and trouble.done_first:
                await self._suffer(trouble, request)
        except _Refused as refused:
            return httpx2.Response(refused.status, json=refused.body, request=request)
        await asyncio.sleep(0)
        return httpx2.Response(200, json=answer, request=request)

    async def _suffer(self, trouble: Trouble, request: httpx2.Request) -> None:
        trouble.arrived.set()
        if trouble.gate is not None:
            await trouble.gate.wait()
        elif trouble.status:
            raise _Refused(trouble.status, "Ordered", f"{trouble.status} as ordered")
        else:
            raise httpx2.ReadError("connection reset", request=request)

    def _act(self, method: str, path: _Path, body: Json, request: httpx2.Request) -> Json:
        if path.plural == "tokenreviews":
            self.reviews.append(body)
            return {**body, "status": self.review(body["spec"])}
        name = path.name or body.get("metadata", {}).get("name", "")
        key = path.plural, path.namespace, name
        current = self.objects.get(key)
        applies = request.headers.get("content-type") == "application/apply-patch+yaml"
        if method == "POST":
            if current is not None:
                raise _Refused(409, "AlreadyExists", f'{path.plural} "{name}" already exists')
            return self._create(key, body)
        if current is None:
            if applies and not path.subresource:
                return self._create(key, body)
            raise _Refused(404, "NotFound", f'{path.plural} "{name}" not found')
        if method == "GET":
            return current
        metadata = body.get("metadata", {})
        if metadata.get("uid") not in (None, current["metadata"]["uid"]):
            raise _Refused(422, "Invalid", f"metadata.uid: Invalid value: {metadata['uid']!r}: field is immutable")
        if metadata.get("resourceVersion") not in (None, current["metadata"]["resourceVersion"]):
            raise _Refused(409, "Conflict", f"the object has been modified: {path.plural} {name!r}")
        fresh = body if method == "PUT" else _merged(current, body)
        fresh = {**fresh, "metadata": {**fresh["metadata"], "uid": current["metadata"]["uid"]}}
        if path.subresource == "status":
            metadata = fresh["metadata"] if path.plural == "pods" else current["metadata"]  # as real ones do for pods
            fresh = {**current, "metadata": metadata, "status": fresh.get("status", {})}
        return self._store(key, fresh)

    def _create(self, key: Key, obj: Json) -> Json:
        obj["metadata"] = obj["metadata"] | {"generation": 1, "creationTimestamp": self._now()}
        obj["metadata"].setdefault("uid", f"uid-{self._version + 1}")
        return self._store(key, obj)

    def _store(self, key: Key, obj: Json) -> Json:
        before = self.objects.get(key)
        if before is not None:
            obj["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
            if obj == before:
                return before  # a write that changes nothing is none
            if obj.get("spec") != before.get("spec"):
                obj["metadata"]["generation"] = before["metadata"]["generation"] + 1
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = obj
        self._tell(key, "MODIFIED" if before else "ADDED", obj)
        return deepcopy(obj)

    # Watches

    def _tell(self, key: Key, what: str, obj: Json) -> None:
        if what == "DELETED":
            self._version += 1
            obj["metadata"]["resourceVersion"] = str(self._version)
        event = {"type": what, "object": deepcopy(obj)}
        self._history.append((self._version, key, event))
        for queue in self._watches.get(key, []):
            queue.put_nowait(event)

    def _watch(self, path: _Path, request: httpx2.Request) -> httpx2.Response:
        selector = request.url.params.get("fieldSelector", "")
        assert selector.startswith("metadata.name="), f"a watch of everything: {request.url}"
        key = path.plural, path.namespace, selector.removeprefix("metadata.name=")
        queue: asyncio.Queue[Json | None] = asyncio.Queue()
        since = request.url.params.get("resourceVersion")
        if since is not None:
            for version, of, event in self._history:
                if of == key and version > int(since):
                    queue.put_nowait(event)
        elif key in self.objects:
            queue.put_nowait({"type": "ADDED", "object": deepcopy(self.objects[key])})
        self._watches.setdefault(key, []).append(queue)
        return httpx2.Response(200, content=_lines(queue), request=request)


class Link(httpx2.AsyncBaseTransport):
    """One replica's way to the server, which may be cut, or lead nowhere, while others have theirs."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._cut = asyncio.Event()
        self._healed = asyncio.Event()
        self.silent = False  # instead of refusing
        self.flowing = asyncio.Event()  # unset: what watches tell does not get here
        self.flowing.set()

    @property
    def cut(self) -> bool:
        return self._cut.is_set()

    @cut.setter
    def cut(self, value: bool) -> None:
        (self._cut.set if value else self._cut.clear)()
        (self._healed.clear if value else self._healed.set)()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.cut and self.silent:
            await self._healed.wait()
        if self.cut:
            raise httpx2.ConnectError("connection refused", request=request)
        response = await self._server.handle_async_request(request)
        if request.url.params.get("watch"):
            lines = response.aiter_raw()
            return httpx2.Response(response.status_code, content=self._until_cut(lines, request), request=request)
        return response

    async def _until_cut(self, lines: AsyncIterator[bytes], request: httpx2.Request) -> AsyncIterator[bytes]:
        while True:
            line = asyncio.ensure_future(anext(lines, None))
            cut = asyncio.ensure_future(self._cut.wait())
            try:
                await asyncio.wait({line, cut}, return_when=asyncio.FIRST_COMPLETED)
                if cut.done():
                    raise httpx2.ReadError("connection reset", request=request)
                if (sent := line.result()) is None:
                    return
                await self.flowing.wait()
                yield sent
            finally:
                line.cancel()
                cut.cancel()


async def _lines(queue: asyncio.Queue[Json | None]) -> AsyncIterator[bytes]:
    while (event := await queue.get()) is not None:
        yield json.dumps(event).encode() + b"\n"


def _parse(path: str) -> _Path:
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource, *_ = [*parts, "", ""]
    return _Path(plural, namespace, name, subresource)


def _merged(into: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = dict(into) if isinstance(into, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result
