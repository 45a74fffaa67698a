"""One of several replicas at a time: leadership by a coordination.k8s.io Lease.

No clock is compared with another's. A holder is taken for gone when its record has not changed for as long as it said
it would renew it, as we ourselves have watched it; and a holder stops before that, by the time since it sent its last
renewal that succeeded. So skewed clocks cost nothing, and there are never two at work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from ambient.control import api
from ambient.control.api import Api, ApiError, Json

# client-go's figures, which API servers and their restarts are used to.
DURATION_S = 15  # others wait this long for a sign of life
RENEW_WITHIN_S = 10.0  # without one that succeeded the holder stops; the rest is for it to have stopped
RETRY_S = 2.0  # between two looks, and between two renewals
RELEASE_S = 2.0  # at the end we are in a hurry: what is not released is waited for

_log = logging.getLogger(__name__)


class Lease:
    def __init__(
        self,
        kubernetes: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        """`identity`: of this process, and of no other or earlier one. `now`: for people who read the Lease."""
        self._api = kubernetes
        self._metadata = {"namespace": namespace, "name": name}
        self._identity = identity
        self._now = now
        self._rng = rng or random.Random()
        self._lease: Json = {}  # as it was when it became ours, or we renewed it
        self._renewed = 0.0  # loop's time before the request that succeeded last
        self._seen: object = None  # the record of the holder we wait for
        self._seen_at = 0.0
        self.held = False

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work` whenever the Lease is ours, and cancel it at once when it is not. Released when this is cancelled.

        `work` does not end by itself; what it raises is raised.
        """
        try:
            while True:
                await self._acquire()
                await self._hold(work)
        finally:
            await self._release()

    async def _acquire(self) -> None:
        complained = False
        while True:
            try:
                async with asyncio.timeout(RENEW_WITHIN_S):
                    if await self._take():
                        return
                complained = False
            except (ApiError, TimeoutError) as error:
                if not complained:
                    _log.warning("cannot acquire Lease %s: %s", self._metadata["name"], str(error) or "no answer")
                complained = True
            await asyncio.sleep(RETRY_S * self._rng.uniform(1.0, 1.2))

    async def _take(self) -> bool:
        """Whether the Lease is ours now. Raises ApiError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        lease = await api.find(self._api, api.LEASE, **self._metadata)
        if lease is None:
            lease = await self._create()
            if not lease:
                return False
        else:
            holder = _holder(lease)
            if lease != self._seen:
                self._seen, self._seen_at = lease, loop.time()
            if holder not in ("", self._identity) and loop.time() < self._seen_at + _duration(lease):
                return False
            try:
                lease = await self._write(lease, took=holder != self._identity)
            except ApiError as error:
                if error.status != api.CONFLICT:
                    raise
                return False  # somebody was quicker
        self._lease, self._renewed = lease, began
        return True

    async def _create(self) -> Json:
        """The new Lease; empty if somebody was quicker."""
        try:
            return await self._api.create(api.LEASE, {"metadata": self._metadata, "spec": self._spec({}, took=True)})
        except ApiError as error:
            if error.status != api.CONFLICT:
                raise
            return {}

    async def _hold(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Until the Lease is lost."""
        _log.info("%s holds Lease %s", self._identity, self._metadata["name"])
        self.held = True
        job = asyncio.create_task(work(), name="lease: work")
        keeper = asyncio.create_task(self._keep(), name="lease: renewal")
        try:
            done, _ = await asyncio.wait({job, keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.held = not keeper.done()  # what still is ours is released by run()
            for task in (job, keeper):
                task.cancel()
            await asyncio.gather(job, keeper, return_exceptions=True)
        if job in done:
            job.result()
            raise RuntimeError("the work under a Lease ended by itself")
        _log.warning("%s has lost Lease %s: %s", self._identity, self._metadata["name"], keeper.result())

    async def _keep(self) -> str:
        """Renew until it is ours no more; returns why."""
        why = "no answer"
        while True:
            try:
                async with asyncio.timeout_at(self._renewed + RENEW_WITHIN_S):
                    await asyncio.sleep(RETRY_S)
                    began = asyncio.get_running_loop().time()
                    self._lease = await self._write(self._lease, took=False)
                    self._renewed = began
            except TimeoutError:
                return f"not renewed for {RENEW_WITHIN_S:.0f} s: {why}"
            except ApiError as error:
                why = str(error)
                if error.status in (api.CONFLICT, api.NOT_FOUND) and (taken := await self._taken_by()):
                    return taken

    async def _taken_by(self) -> str:
        """Who has it, if it is not ours. If it is, somebody has only touched it, or an answer to us was lost."""
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout_at(self._renewed + RENEW_WITHIN_S):
                lease = await api.find(self._api, api.LEASE, **self._metadata)
                if lease is None or _holder(lease) != self._identity:
                    return f"{_holder(lease or {}) or 'nobody'} has it"
                self._lease = lease
        return ""

    async def _release(self) -> None:
        if not self.held:
            return
        self.held = False
        try:
            async with asyncio.timeout(RELEASE_S):
                try:
                    await self._free(self._lease)
                except ApiError as error:
                    if error.status != api.CONFLICT:
                        raise
                    lease = await self._api.get(api.LEASE, **self._metadata)  # a renewal's answer was not waited for
                    if _holder(lease) == self._identity:
                        await self._free(lease)
        except (ApiError, TimeoutError) as error:
            _log.warning("Lease %s was not released, others wait for it: %s", self._metadata["name"], error)

    async def _free(self, lease: Json) -> None:
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._time()}
        await self._api.replace(api.LEASE, {**lease, "spec": spec})

    async def _write(self, lease: Json, *, took: bool) -> Json:
        return await self._api.replace(api.LEASE, {**lease, "spec": self._spec(lease.get("spec") or {}, took=took)})

    def _spec(self, before: Json, *, took: bool) -> Json:
        spec = {
            **before,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": self._time(),
        }
        if took:
            spec |= {"acquireTime": self._time(), "leaseTransitions": int(before.get("leaseTransitions") or 0) + 1}
        return spec

    def _time(self) -> str:
        return f"{self._now().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _holder(lease: Json) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _duration(lease: Json) -> float:
    return float((lease.get("spec") or {}).get("leaseDurationSeconds") or DURATION_S)
