"""The API server, asked with the pod's own credentials about one object at a time. Blocking; decides nothing.

A node's only way there, and for one question alone (removal.py): a few lines over http.client, and no client library.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where kubelet puts a pod's token and the API's CA
TIMEOUT_S = 5.0
WATCH_S = 600  # the server ends a watch then: a token that kubelet renewed meanwhile is used for the next one
KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))  # silent, or gone?
Object = Mapping[str, Any]


class ApiServer:
    """One connection: made when it is needed, until close()."""

    def __init__(self, credentials: Path = CREDENTIALS) -> None:
        """Raises OSError where there are no credentials."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise OSError("KUBERNETES_SERVICE_HOST is not set: this is no pod")
        self._token = (credentials / "token").read_text().strip()
        trusted = ssl.create_default_context(cafile=str(credentials / "ca.crt"))
        self._connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT_S, context=trusted)

    def get(self, path: str) -> tuple[int, Object]:
        """Status and body. Raises OSError when it is not the API server that answers, or nobody."""
        try:
            answer = self._ask(path)
            body = json.loads(answer.read())
        except (http.client.HTTPException, ValueError) as error:
            self.close()
            raise OSError(f"{path}: {error!r}") from error
        return answer.status, body if isinstance(body, dict) else {}

    def watch(self, collection: str, name: str, version: str) -> Iterator[tuple[str, Object]]:
        """What happens to one object after a version of it, until the server ends it: type of each event, and object.

        Raises OSError.
        """
        path = (
            f"{collection}?watch=1&fieldSelector=metadata.name%3D{name}"
            f"&resourceVersion={version}&timeoutSeconds={WATCH_S}"
        )
        try:
            answer = self._ask(path)
            if answer.status != http.HTTPStatus.OK:
                answer.read()
                raise OSError(f"watching {collection}/{name}: the API server answers with {answer.status}")
            assert self._connection.sock is not None
            self._connection.sock.settimeout(WATCH_S + TIMEOUT_S)
            for option in KEEPALIVE:
                self._connection.sock.setsockopt(socket.IPPROTO_TCP, *option)
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            while line := answer.readline():
                event = json.loads(line)
                yield str(event["type"]), event["object"]
        except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise OSError(f"watching {collection}/{name}: {error!r}") from error
        finally:
            self.close()

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """For another thread: whoever waits for an answer is told that none will come."""
        if (sock := self._connection.sock) is not None:
            sock.shutdown(socket.SHUT_RDWR)

    def _ask(self, path: str) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        self._connection.request("GET", path, headers=headers)
        return self._connection.getresponse()
