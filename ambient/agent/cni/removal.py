"""Is the mesh being removed, or its agent only restarted? The one look at the API server that a node takes.

The agent itself has no rights there: this is for the hook that runs before its pod ends, with a token of its own that
may read the DaemonSet and its namespace, by name. Where it may not look any more, what let it was removed too.
"""

from __future__ import annotations

import enum
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ambient.identity import tokens

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where kubelet puts a pod's token and the API's CA
TIMEOUT_S = 5.0
PATIENCE_S, PAUSE_S = 15.0, 1.0  # an API server that is restarted, or elected anew, is back by then
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, OK = 401, 403, 404, 200


class Finding(enum.Enum):
    GONE = "gone or going"
    THERE = "there to stay"
    UNKNOWN = "unknown"


Get = Callable[[str], tuple[int, Mapping[str, Any]]]  # path -> status, body; raises OSError


def find_out(
    namespace: str,
    daemonset: str,
    get: Get,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Finding, str]:
    """look(), until there is an answer or PATIENCE_S is over: nobody asks once this pod has ended."""
    until = clock() + PATIENCE_S
    while True:
        finding, why = look(namespace, daemonset, get)
        if finding is not Finding.UNKNOWN or clock() >= until:
            return finding, why
        sleep(PAUSE_S)


def look(namespace: str, daemonset: str, get: Get) -> tuple[Finding, str]:
    """Whether the DaemonSet goes for good, and a sentence. What cannot be learnt is unknown: the plugin then stays."""
    where = f"/api/v1/namespaces/{namespace}"
    try:
        status, body = get(where)
        if status in (UNAUTHORIZED, NOT_FOUND) or (status == OK and _is_leaving(body)):
            return Finding.GONE, f"namespace {namespace} is {_said(status)}"
        status, body = get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{daemonset}")
    except OSError as error:
        return Finding.UNKNOWN, f"the API server cannot be asked: {error}"
    name = f"DaemonSet {namespace}/{daemonset}"
    if status in (UNAUTHORIZED, FORBIDDEN, NOT_FOUND) or (status == OK and _is_leaving(body)):
        return Finding.GONE, f"{name} is {_said(status)}"
    if status == OK:
        return Finding.THERE, f"{name} is there: this is a restart"
    return Finding.UNKNOWN, f"{name}: the API server answers with {status}"


def _is_leaving(body: Mapping[str, Any]) -> bool:
    metadata = body.get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("deletionTimestamp"))


def _said(status: int) -> str:
    return {
        OK: "being deleted",
        NOT_FOUND: "not there any more",
        UNAUTHORIZED: "beyond our account, which was removed",
        FORBIDDEN: "beyond our rights, which were removed",
    }[status]


def is_over(token: str, now: float) -> bool:
    """Whether a ServiceAccount's token says that it has expired. Its signature is the API server's to check."""
    try:
        return tokens.expires(token) <= now
    except ValueError:
        return False


def in_cluster(credentials: Path = CREDENTIALS) -> Get:
    """GET with the pod's own credentials. Raises OSError where there are none.

    A 401 to a token that has expired is an OSError too: kubelet renews it, and its age says nothing of the account.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise OSError("KUBERNETES_SERVICE_HOST is not set: this is no pod")
    token = (credentials / "token").read_text().strip()
    trusted = ssl.create_default_context(cafile=str(credentials / "ca.crt"))

    def get(path: str) -> tuple[int, Mapping[str, Any]]:
        connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT_S, context=trusted)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept": "application/json"})
            answer = connection.getresponse()
            body = json.loads(answer.read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{path}: {error!r}") from error
        finally:
            connection.close()
        if answer.status == UNAUTHORIZED and is_over(token, time.time()):
            raise OSError("the token has expired, and kubelet has not renewed it")
        return answer.status, body if isinstance(body, dict) else {}

    return get
