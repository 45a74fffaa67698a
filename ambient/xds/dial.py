"""A connection to any replica of a control plane that proves to be it. Knows no service and no message type.

Every connection reads the token and the trusted roots anew, because both are replaced while we run, and goes to the
addresses in random order, so that agents spread over the replicas. Whom to trust is trust.py's to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ambient.xds import channel
from ambient.xds.call import RpcFailed, Status
from ambient.xds.channel import Channel, Keepalive
from ambient.xds.trust import NoRoots, Trust

Metadata = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Where it is, how to know it, and who we are."""

    targets: tuple[str, ...]  # HOST:PORT; all addresses of all hosts are tried
    server_name: str  # a DNS name that its certificate must hold
    trust: Trust  # whom we believe that
    token: Path | None = None  # a ServiceAccount's
    connect_s: float = 3.0  # TCP and TLS: milliseconds within a cluster, so one that takes longer is dead
    keepalive: Keepalive = field(default_factory=Keepalive)


@contextlib.asynccontextmanager
async def dial(control: ControlPlane, rng: random.Random) -> AsyncGenerator[tuple[Channel, Metadata], None]:
    """A connection, and the metadata that says who is calling. Raises RpcFailed: UNAVAILABLE with every reason,
    FAILED_PRECONDITION for what is missing here."""
    tls, metadata = _tls(control.trust), _metadata(control.token)
    addresses = await _addresses(control.targets)
    rng.shuffle(addresses)
    failed: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        for host, port in addresses:
            attempt = channel.connect(
                host, port, tls, control.server_name, timeout_s=control.connect_s, keepalive=control.keepalive
            )
            try:
                connection = await stack.enter_async_context(attempt)
            except RpcFailed as error:
                failed.append(str(error))
                continue
            break
        else:
            raise RpcFailed(Status.UNAVAILABLE, "; ".join(failed) or "there is no address to try")
        yield connection, metadata


def _tls(trust: Trust) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=trust.for_control_plane().decode())
    except NoRoots as error:
        raise RpcFailed(Status.FAILED_PRECONDITION, str(error)) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    return context


def _metadata(token: Path | None) -> Metadata:
    if token is None:
        return {}
    try:
        return {"authorization": f"Bearer {token.read_text().strip()}"}
    except (OSError, UnicodeDecodeError) as error:
        why = f"cannot read our token {token}: {error}; it is a projected volume of the agent's pod"
        raise RpcFailed(Status.FAILED_PRECONDITION, why) from error


async def _addresses(targets: tuple[str, ...]) -> list[tuple[str, int]]:
    found: dict[tuple[str, int], None] = {}
    for target in targets:
        host, _, port = target.rpartition(":")
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise RpcFailed(Status.UNAVAILABLE, f"cannot resolve {target}: {error}") from error
        found.update(dict.fromkeys((str(info[4][0]), int(info[4][1])) for info in infos))
    return list(found)
