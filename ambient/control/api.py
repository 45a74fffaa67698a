"""What the control plane does at the Kubernetes API, object by object; and that, done with lightkube.

Objects are plain JSON: what we do not know of them we neither read nor lose. Nothing here is tried twice.
"""

from __future__ import annotations

import contextlib
import enum
import functools
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
import lightkube
from lightkube import generic_resource
from lightkube.core.exceptions import ConfigError
from lightkube.types import PatchType

from ambient.sources import kubernetes

Json = dict[str, Any]
Event = tuple[str, Json]  # ADDED, MODIFIED or DELETED, and the object

NOT_FOUND, CONFLICT, GONE, INVALID = 404, 409, 410, 422
WATCH_S = 300  # the server ends a watch after so long, which spreads watches over its replicas
FIELD_MANAGER = "ambient-control"


class ApiError(Exception):
    """The API server could not be reached, or refused. `status`: of HTTP; 0: there was no (complete) answer."""

    def __init__(self, text: str, *, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Kind:
    kind: str
    plural: str
    api_version: str = "v1"
    namespaced: bool = True


SECRET = Kind("Secret", "secrets")
CONFIG_MAP = Kind("ConfigMap", "configmaps")
POD = Kind("Pod", "pods")
EVENT = Kind("Event", "events", "events.k8s.io/v1")
LEASE = Kind("Lease", "leases", "coordination.k8s.io/v1")
TOKEN_REVIEW = Kind("TokenReview", "tokenreviews", "authentication.k8s.io/v1", namespaced=False)


class Patch(enum.Enum):
    MERGE = "merge"  # RFC 7386; a resourceVersion or uid in its metadata must be the object's
    APPLY = "apply"  # server-side, by force: creates the object if need be; the fields in it are ours


class Api(Protocol):
    """Every method raises ApiError. A namespace is empty for what has none."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Json: ...

    async def create(self, kind: Kind, obj: Json) -> Json: ...

    async def replace(self, kind: Kind, obj: Json) -> Json:
        """`obj` as it was read, changed: CONFLICT if somebody else has changed it since."""

    async def patch(self, kind: Kind, obj: Json, how: Patch, *, status: bool = False) -> Json:
        """`obj` names itself, and holds what is to change. `status`: by the status subresource."""

    def watch(self, kind: Kind, namespace: str, name: str, version: str) -> AsyncGenerator[Event, None]:
        """What happens to one object from `version` on; without a version also what is there."""


async def find(kubernetes: Api, kind: Kind, namespace: str, name: str) -> Json | None:
    """The object, or None if there is none. Raises ApiError."""
    try:
        return await kubernetes.get(kind, namespace, name)
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
        return None


class LightkubeApi:
    """Implements Api."""

    def __init__(self, client: lightkube.AsyncClient) -> None:
        self._client = client

    async def get(self, kind: Kind, namespace: str, name: str) -> Json:
        with _translated(f"get {kind.kind} {namespace}/{name}"):
            return dict(await self._client.get(_resource(kind), name, namespace=namespace or None))

    async def create(self, kind: Kind, obj: Json) -> Json:
        with _translated(f"create {_named(kind, obj)}"):
            return dict(await self._client.create(_resource(kind)(obj), field_manager=FIELD_MANAGER))

    async def replace(self, kind: Kind, obj: Json) -> Json:
        with _translated(f"replace {_named(kind, obj)}"):
            return dict(await self._client.replace(_resource(kind)(obj), field_manager=FIELD_MANAGER))

    async def patch(self, kind: Kind, obj: Json, how: Patch, *, status: bool = False) -> Json:
        resource = _resource(kind).Status if status else _resource(kind)
        with _translated(f"patch {_named(kind, obj)}"):
            return dict(
                await self._client.patch(
                    resource,
                    obj["metadata"]["name"],
                    {"apiVersion": kind.api_version, "kind": kind.kind, **obj},
                    namespace=obj["metadata"].get("namespace"),
                    patch_type=PatchType.APPLY if how is Patch.APPLY else PatchType.MERGE,
                    field_manager=FIELD_MANAGER,
                    force=how is Patch.APPLY,
                )
            )

    async def watch(self, kind: Kind, namespace: str, name: str, version: str) -> AsyncGenerator[Event, None]:
        with _translated(f"watch {kind.kind} {namespace}/{name}"):
            events: AsyncIterable[Event] = self._client.watch(
                _resource(kind),
                namespace=namespace or None,
                fields={"metadata.name": name},
                resource_version=version or None,
                server_timeout=WATCH_S,
            )
            async for what, obj in events:
                yield what, dict(obj)

    async def aclose(self) -> None:
        await self._client.close()


def _named(kind: Kind, obj: Json) -> str:
    metadata = obj.get("metadata", {})
    return f"{kind.kind} {metadata.get('namespace', '')}/{metadata.get('name', '')}"


@functools.cache
def _resource(kind: Kind) -> Any:
    """lightkube's class for objects as plain JSON."""
    group, _, version = kind.api_version.rpartition("/")
    create = generic_resource.create_namespaced_resource if kind.namespaced else generic_resource.create_global_resource
    return create(group, version, kind.kind, kind.plural)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except lightkube.ApiError as error:
        raise ApiError(f"cannot {what}: {error.status.message}", status=error.status.code or 0) from error
    except httpx2.HTTPStatusError as error:  # refused by something that is no API server
        status = error.response.status_code
        raise ApiError(f"cannot {what}: {status} {error.response.reason_phrase}", status=status) from error
    except (httpx2.HTTPError, ConfigError, ValueError, KeyError) as error:
        # ValueError: an answer that is not whole; KeyError: lightkube on one without a content type
        raise ApiError(f"cannot {what}: {type(error).__name__}: {error}") from error


def connect(kubeconfig: Path | None = None) -> LightkubeApi:
    """By the kubeconfig, else this pod's ServiceAccount, $KUBECONFIG or ~/.kube/config. Connects to nothing yet.

    Raises ApiError.
    """
    try:
        return LightkubeApi(kubernetes.connect(kubeconfig))
    except kubernetes.NoCluster as error:
        raise ApiError(str(error)) from error
