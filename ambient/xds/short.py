"""Short calls to the control plane over xds.dial: a connection for each, because they are far apart.

An agent asks for a certificate when a pod of a new identity comes and at half of a certificate's life, and reports when
captures change: a connection that is kept would have to be looked after for hours in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from ambient.xds.call import RpcFailed, Status, name_of
from ambient.xds.calls import CallFailed
from ambient.xds.channel import Channel
from ambient.xds.dial import ControlPlane, Metadata, dial
from ambient.xds.retry import pause

DEADLINE_S = 10.0  # for a call, connecting included
FIRST_S, LAST_S = 0.1, 2.0  # between two attempts to connect: a replica that leaves takes itself off the Service


class ShortCalls:
    def __init__(self, control: ControlPlane, rng: random.Random | None = None) -> None:
        self._control = control
        self._rng = rng or random.Random()

    async def __call__(self, method: str, request: bytes) -> bytes:
        """See calls.Call. While there is time, a replica is looked for; one that answers is not asked twice: whoever
        calls knows better how soon it is worth it."""
        where, name = ", ".join(self._control.targets), method.rpartition("/")[2]
        ends = asyncio.get_running_loop().time() + DEADLINE_S
        async with contextlib.AsyncExitStack() as stack:
            try:
                channel, metadata = await self._connected(stack, ends)
            except RpcFailed as error:
                text = f"{name} was not asked of the control plane at {where}: {error}{self._advice(error.status)}"
                raise CallFailed(text) from error
            try:
                left = max(ends - asyncio.get_running_loop().time(), 0.001)
                return await channel.unary(method, request, metadata, timeout_s=left)
            except RpcFailed as error:
                text = f"the control plane at {where} answered {name} with {name_of(error.status)}: {error}"
                raise CallFailed(text + self._advice(error.status)) from error

    async def _connected(self, stack: contextlib.AsyncExitStack, ends: float) -> tuple[Channel, Metadata]:
        """Raises RpcFailed."""
        failures = 0
        while True:
            try:
                return await stack.enter_async_context(dial(self._control, self._rng))
            except RpcFailed as error:
                failures += 1
                rest = pause(failures, self._rng, first=FIRST_S, last=LAST_S)
                if error.status != Status.UNAVAILABLE or asyncio.get_running_loop().time() + rest >= ends:
                    raise
            await asyncio.sleep(rest)

    def _advice(self, status: int) -> str:
        match status:
            case Status.UNAUTHENTICATED:
                return f"; our token is {self._control.token}"
            case Status.UNAVAILABLE:
                return f"; is a control plane's pod ready, and its certificate by a root in {self._control.trust.file}?"
        return ""
