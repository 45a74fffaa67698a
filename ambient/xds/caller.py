"""Who calls one of our servers, and how somebody else is turned away. Who may do what is each server's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from ambient.xds.call import Status
from ambient.xds.served import Aborted

Metadata = Mapping[str, str]  # what the caller said in headers, and at served.PEER where it called from


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


async def admit(metadata: Metadata, authenticate: Authenticate) -> Caller:
    """The caller of an RPC. Raises Aborted if there is none."""
    try:
        return await authenticate(metadata)
    except Unauthenticated as error:
        raise Aborted(Status.UNAUTHENTICATED, str(error)) from error
    except CannotAuthenticate as error:
        raise Aborted(Status.UNAVAILABLE, str(error)) from error
