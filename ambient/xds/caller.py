"""Who calls one of our servers, and how somebody else is turned away. Who may do what is each server's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

Metadata = Mapping[str, str]
Context = grpc.aio.ServicerContext[Any, Any]


class Unauthenticated(Exception):
    """The caller has not shown who it is. `reason` is stable snake_case; the text, what was found and what to do."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class CannotAuthenticate(Exception):
    """Nobody can tell at the moment who the caller is; another replica, or another moment, may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A pod that has proven to be itself, and the node it runs on."""

    namespace: str
    service_account: str
    pod: str
    pod_uid: str
    node: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod} on node {self.node}"


Authenticate = Callable[[Metadata], Awaitable[Caller]]  # raises Unauthenticated or CannotAuthenticate


async def admit(context: Context, authenticate: Authenticate) -> Caller:
    """The caller of an RPC; ends the RPC if there is none."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    try:
        return await authenticate(metadata)
    except Unauthenticated as error:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
    except CannotAuthenticate as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
