"""Short calls to the control plane, over one connection that all of them share.

It is replaced when whom we trust has changed, and the token is read for each call: nothing is kept here that somebody
else renews.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from ambient.xds.calls import CallFailed
from ambient.xds.trust import NoRoots, Trust

DEADLINE_S = 10.0  # for a short call, waiting for a connection included
GRACE_S = 30.0  # for calls under way when the roots change: a stream ends then, and comes back over the new ones

_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),  # a control plane that died without a word is noticed, and another one found
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # also how long a connection may take to come about
    ("grpc.max_reconnect_backoff_ms", 5_000),  # after an outage nobody waits longer
    ("grpc.enable_retries", 0),  # whoever calls knows better what may be repeated
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    target: str  # HOST:PORT
    token_file: Path  # a projected ServiceAccount token
    server_name: str = ""  # DNS name in the control plane's certificate; empty: the target's host


class Control:
    """One connection, shared by all who call; replaced when whom we trust has changed."""

    def __init__(self, settings: Settings, trust: Trust) -> None:
        self.settings = settings
        self._trust = trust
        self._channel: grpc.aio.Channel | None = None
        self._trusts = b""  # by which the channel was made
        self._leaving: set[asyncio.Task[None]] = set()

    def channel(self) -> grpc.aio.Channel:
        """For the next call; a later one may get another. Raises CallFailed without roots."""
        try:
            trusts = self._trust.for_control_plane()
        except NoRoots as error:
            raise CallFailed(str(error)) from error
        if self._channel is None or trusts != self._trusts:
            self._retire()
            options: list[tuple[str, str | int]] = list(_OPTIONS)
            if self.settings.server_name:
                options.append(("grpc.ssl_target_name_override", self.settings.server_name))
            credentials = grpc.ssl_channel_credentials(trusts)
            self._channel = grpc.aio.secure_channel(self.settings.target, credentials, options)
            self._trusts = trusts
        return self._channel

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Who we are, for one call. Raises CallFailed without a token."""
        path = self.settings.token_file
        try:
            token = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CallFailed(
                f"cannot read our token {path}: {error}; it is a projected volume of the agent's pod"
            ) from error
        return (("authorization", f"Bearer {token}"),)

    async def call(self, method: str, request: bytes, *, deadline: float = DEADLINE_S) -> bytes:
        """See calls.Call: it is made again while there is time, if the connection fails."""
        ends = asyncio.get_running_loop().time() + deadline
        while True:
            channel = self.channel()
            stub: Any = channel.unary_unary(method)
            left = ends - asyncio.get_running_loop().time()
            try:
                answer: bytes = await stub(request, timeout=max(left, 0.001), metadata=self.metadata())
            except grpc.aio.AioRpcError as error:
                failed = error
            else:
                return answer
            if failed.code() is not grpc.StatusCode.UNAVAILABLE or not await _reconnected(channel, ends):
                raise CallFailed(self._explain(method, failed)) from failed

    async def close(self) -> None:
        self._retire(grace=None)
        await asyncio.gather(*self._leaving)

    def _retire(self, grace: float | None = GRACE_S) -> None:
        if self._channel is not None:
            task = asyncio.create_task(self._channel.close(grace), name="control: former channel")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            self._channel = None

    def _explain(self, method: str, failed: grpc.aio.AioRpcError) -> str:
        advice = {
            grpc.StatusCode.UNAUTHENTICATED: f"; our token is {self.settings.token_file}",
            grpc.StatusCode.UNAVAILABLE: "; is a control plane's pod ready, and is its certificate by a root in "
            f"{self._trust.file}?",
        }
        code = failed.code()
        return (
            f"the control plane at {self.settings.target} answered {method.rpartition('/')[2]} with {code.name}: "
            f"{failed.details()}{advice.get(code, '')}"
        )


async def _reconnected(channel: grpc.aio.Channel, until: float) -> bool:
    """Whether a channel that had lost its connection has one again in time. One that had not, did not fail by that."""
    state = channel.get_state(try_to_connect=True)
    if state is grpc.ChannelConnectivity.READY:
        return False
    try:
        async with asyncio.timeout_at(until):
            while state is not grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        return False
    return True
