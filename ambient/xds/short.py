"""Short calls to the control plane over xds.dial: a connection for each, because they are far apart.

An agent asks for a certificate when a pod of a new identity comes and at half of a certificate's life, and reports when
captures change: a connection that is kept would have to be looked after for hours in between.
"""

from __future__ import annotations

import asyncio
import random

from ambient.xds.call import RpcFailed, Status
from ambient.xds.calls import CallFailed
from ambient.xds.dial import ControlPlane, dial

DEADLINE_S = 10.0  # for a call, connecting included
AGAIN_S = 0.2  # between two attempts: a replica that is leaving takes itself off the Service


class ShortCalls:
    def __init__(self, control: ControlPlane, rng: random.Random | None = None) -> None:
        self._control = control
        self._rng = rng or random.Random()

    async def __call__(self, method: str, request: bytes) -> bytes:
        """See calls.Call: it is made again, maybe to another replica, while there is time and nobody to answer."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + DEADLINE_S
        while True:
            try:
                async with dial(self._control, self._rng) as (channel, metadata):
                    return await channel.unary(method, request, metadata, timeout_s=max(ends - loop.time(), 0.001))
            except RpcFailed as error:
                if error.status != Status.UNAVAILABLE or loop.time() + AGAIN_S >= ends:
                    raise CallFailed(self._explain(method, error)) from error
            await asyncio.sleep(AGAIN_S)

    def _explain(self, method: str, failed: RpcFailed) -> str:
        advice = {
            Status.UNAUTHENTICATED: f"; our token is {self._control.token}",
            Status.UNAVAILABLE: f"; is a control plane's pod ready, and its certificate by a root in "
            f"{self._control.trust.file}?",
        }
        where = ", ".join(self._control.targets)
        name = method.rpartition("/")[2]
        return f"the control plane at {where} did not answer {name}: {failed}{advice.get(failed.status, '')}"
