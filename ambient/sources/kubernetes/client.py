"""The client of the API server: where it is, who we are there, and its answers as typed objects or as bytes.

The one place where the client library is set up, and where its errors become ours. Knows no kinds, tries nothing twice.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path

import httpx2
import lightkube
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

import ambient

FIELD_MANAGER = "ambient-control"
CONNECT_S = 10.0  # a control plane across a slow network still answers; one that is gone does not hold us for long
ANSWER_S = 30.0  # between two pieces of an answer; a list of many pods takes a busy server seconds
LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20)  # a dozen are watches, and never idle
# A peer that vanished without a word is noticed within 30 s; a quiet watch would otherwise look the same for minutes.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)
# Not compressed: a list costs the server ten times the CPU to compress, and us some to undo it, to save a fast network.
HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"{FIELD_MANAGER}/{ambient.__version__}",
}
# lightkube finds out what is wrong with a configuration by using it
UNUSABLE = (
    ConfigError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    httpx2.InvalidURL,
    msgspec.MsgspecError,
    yaml.YAMLError,
)


class NoCluster(Exception):
    """Nothing says where the API server is or who we are there."""


class ApiError(Exception):
    """The API server could not be reached, or refused; says which server and what it said."""

    def __init__(self, text: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        self.status = status  # of HTTP; 0: there was no (complete) answer
        self.retry_after = retry_after  # seconds that the server asks to be left alone
        super().__init__(text)


class Client(lightkube.AsyncClient):
    """lightkube's client for typed calls (get, create, patch, ...); read() and stream() for lists and watches as bytes.

    Both use the same connections and credentials. A ServiceAccount's token is read again when it is no longer taken.
    """

    def __init__(self, config: SingleConfig, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        if config.user is None:
            raise NoCluster(f"context {config.context_name!r} of the kubeconfig names no user")
        self.server = config.cluster.server
        if transport is None:
            trust = verify_cluster(config.cluster, config.user, config.abs_file, trust_env=False)
            transport = httpx2.AsyncHTTPTransport(verify=trust, limits=LIMITS, socket_options=KEEPALIVE)
        timeout = httpx2.Timeout(CONNECT_S, read=ANSWER_S)
        super().__init__(config, transport=transport, timeout=timeout, field_manager=FIELD_MANAGER, trust_env=False)
        self._bytes = httpx2.AsyncClient(
            base_url=self.server,
            auth=user_auth(config.user),
            transport=transport,
            timeout=timeout,
            headers=HEADERS,
            trust_env=False,
        )

    async def read(self, path: str, params: Mapping[str, str]) -> bytes:
        """The whole answer to a GET. Raises ApiError."""
        async with self._answer(path, params, ANSWER_S) as response:
            return await response.aread()

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, silence_s: float
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """The answer to a GET piece by piece, as it comes. silence_s: without a piece for so long, it is lost.

        Raises ApiError, also in the block that reads it.
        """
        async with self._answer(path, params, silence_s) as response:
            yield response.aiter_bytes()

    @contextlib.asynccontextmanager
    async def _answer(
        self, path: str, params: Mapping[str, str], silence_s: float
    ) -> AsyncGenerator[httpx2.Response, None]:
        timeout = httpx2.Timeout(CONNECT_S, read=silence_s)
        try:
            async with self._bytes.stream("GET", path, params=params, timeout=timeout) as response:
                if response.status_code != httpx2.codes.OK:
                    raise _refusal(self.server, response, await response.aread())
                yield response
        except (httpx2.HTTPError, ConfigError) as error:
            raise ApiError(f"{self.server}: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        await self._bytes.aclose()
        await super().close()


class _Status(msgspec.Struct):
    """What the API server says of a failure (meta/v1 Status)."""

    message: str = ""
    reason: str = ""


def _refusal(server: str, response: httpx2.Response, body: bytes) -> ApiError:
    try:
        said = msgspec.json.decode(body, type=_Status).message
    except msgspec.MsgspecError:  # a proxy's page, or nothing
        said = response.reason_phrase
    after = response.headers.get("Retry-After", "")
    return ApiError(
        f"{server}: {response.status_code} {said}",
        status=response.status_code,
        retry_after=float(after) if after.isascii() and after.isdigit() else 0.0,
    )


def connect(kubeconfig: Path | None = None, service_account: Path = Path(SERVICE_ACCOUNT)) -> Client:
    """The client of the kubeconfig; without one, of this pod's ServiceAccount, else $KUBECONFIG or ~/.kube/config.

    Connects to nothing yet. Raises NoCluster.
    """
    where = str(kubeconfig or f"{service_account}, $KUBECONFIG or {DEFAULT_KUBECONFIG}")
    try:
        if kubeconfig:
            config = KubeConfig.from_file(kubeconfig).get()
        else:
            config = KubeConfig.from_env(service_account=service_account).get()
        if config is None:
            raise ConfigError("no current context")
        return Client(config)
    except (LookupError, TypeError, AttributeError, UnicodeDecodeError) as error:
        why = f"expected a kubeconfig, `kubectl config view` shows one; {type(error).__name__}: {error}"
        raise NoCluster(f"no API server to talk to: {where}: {why}") from error
    except UNUSABLE as error:
        raise NoCluster(f"no API server to talk to: {where}: {type(error).__name__}: {error}") from error
