"""Is the mesh being removed, or its agent only restarted? What answers of the API server mean; changes nothing.

Only an object that is gone, or going, says "removed". A refusal (401, 403) says nothing by itself: a mistake in RBAC,
and an API server that just starts, answer so, too. It may also be the truth after a removal that took the account
along, as `kubectl delete -f` does within moments; then somebody must have seen the DaemonSet go: the agent (fate.py).
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

PATIENCE_S, PAUSE_S = 15.0, 1.0  # an API server that is restarted, or elected anew, is back by then


class Finding(enum.Enum):
    GONE = "gone or going"
    THERE = "there to stay"
    UNKNOWN = "unknown"


Get = Callable[[str], tuple[int, Mapping[str, Any]]]  # path -> status, body; raises OSError
Seen = Callable[[], str]  # a sentence if somebody saw the DaemonSet go, else empty


def find_out(
    namespace: str,
    daemonset: str,
    get: Get,
    seen: Seen,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Finding, str]:
    """look(), until there is an answer or PATIENCE_S is over: nobody asks once this pod has ended.

    The API server's word comes first: it is of now. Where it says nothing, what was seen before counts.
    """
    until = clock() + PATIENCE_S
    while True:
        finding, why = look(namespace, daemonset, get)
        if finding is Finding.UNKNOWN and (witnessed := seen()):
            return Finding.GONE, witnessed
        if finding is not Finding.UNKNOWN or clock() >= until:
            return finding, why
        sleep(PAUSE_S)


def look(namespace: str, daemonset: str, get: Get) -> tuple[Finding, str]:
    """Whether the DaemonSet goes for good, and a sentence. What cannot be learnt is unknown: the plugin then stays."""
    try:
        status, body = get(f"/api/v1/namespaces/{namespace}")
        if why := going(status, body, namespace):
            return Finding.GONE, f"namespace {namespace} {why}"
        status, body = get(f"{collection(namespace)}/{daemonset}")
    except OSError as error:
        return Finding.UNKNOWN, f"the API server cannot be asked: {error}"
    name = f"DaemonSet {namespace}/{daemonset}"
    if why := going(status, body, daemonset):
        return Finding.GONE, f"{name} {why}"
    if status == HTTPStatus.OK:
        return Finding.THERE, f"{name} is there: this is a restart"
    hint = {
        HTTPStatus.UNAUTHORIZED: ", it does not take our token: expired, or its account is gone",
        HTTPStatus.FORBIDDEN: ", we may not ask: see the Role ambient-agent",
    }
    said = next((text for code, text in hint.items() if code == status), "")
    return Finding.UNKNOWN, f"{name}: the API server answers with {status}{said}"


def collection(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/daemonsets"


def going(status: int, body: Mapping[str, Any], name: str) -> str:
    """Empty, or what has become of the object. A 404 must be about it: one that is about the path says nothing."""
    if status == HTTPStatus.NOT_FOUND and (body.get("details") or {}).get("name") == name:
        return "is not there any more"
    return "is being deleted" if status == HTTPStatus.OK and is_leaving(body) else ""


def is_leaving(body: Mapping[str, Any]) -> bool:
    metadata = body.get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("deletionTimestamp"))
