"""An API server that plays a transcript: for each path its answers in turn, cut, delayed and broken as written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster, Context, User

from ambient.sources.kubernetes.client import Client

SERVER = "https://api.test"
CONFIG = SingleConfig("test", Context("test"), Cluster(SERVER, insecure=True), User())  # no CA bundle to load
FOREVER = 1e6  # seconds: longer than any test, and over at once on virtual time
Piece = bytes | float | Exception  # to send, to wait (seconds), to break with


class Stream(httpx2.AsyncByteStream):
    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            yield piece


@dataclass(frozen=True)
class Answer:
    pieces: Sequence[Piece]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Script(httpx2.AsyncBaseTransport):
    """What is asked beyond the script is answered with silence."""

    answers: dict[str, list[Answer | Exception]]
    asked: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # when, on the loop's clock
    timeouts: list[dict[str, float]] = field(default_factory=list)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(dict(request.url.params))
        self.times.append(asyncio.get_running_loop().time())
        self.timeouts.append(request.extensions["timeout"])
        left = self.answers.get(request.url.path, [])
        answer = left.pop(0) if left else Answer([FOREVER])
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer.status, headers=answer.headers, stream=Stream(_play(answer.pieces)))

    def client(self) -> Client:
        return Client(CONFIG, transport=self)


async def _play(pieces: Sequence[Piece]) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, bytes):
            yield piece
        else:
            await asyncio.sleep(piece)


def a_list(*objects: dict[str, Any], version: str = "100", more: str = "") -> Answer:
    metadata = {"resourceVersion": version} | ({"continue": more} if more else {})
    return Answer([json.dumps({"kind": "List", "metadata": metadata, "items": list(objects)}).encode()])


def a_watch(*pieces: Piece) -> Answer:
    """It ends after the last piece."""
    return Answer(pieces)


def a_failure(code: int, message: str = "no", retry_after: str = "") -> Answer:
    headers = {"Content-Type": "application/json"} | ({"Retry-After": retry_after} if retry_after else {})
    return Answer([json.dumps(a_status(code, message)).encode()], code, headers)


def a_status(code: int, message: str = "no") -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": message}


def an_event(change: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": change, "object": found}, ensure_ascii=False).encode() + b"\n"


def an_error(code: int, message: str = "no") -> bytes:
    return an_event("ERROR", a_status(code, message))


def a_bookmark(version: str) -> bytes:
    return an_event("BOOKMARK", {"kind": "Namespace", "metadata": {"resourceVersion": version}})


def a_namespace(name: str, version: str = "1", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": "u-" + name, "resourceVersion": version, "labels": labels}}


GONE = httpx2.ReadError("connection reset")
UNREACHABLE = httpx2.ConnectError("All connection attempts failed")
