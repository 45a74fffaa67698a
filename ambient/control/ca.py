"""What signs in this replica, followed wherever it is kept, and the replica's own certificate.

Keeps what it had while the new is unusable: certificates are still to be renewed while somebody restores a Secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime, timedelta

from ambient.identity import profile, schedule, signing
from ambient.identity.ca_state import CaUnusable
from ambient.identity.csr import SigningRequest
from ambient.identity.issuer import Issued, IssuingFailed
from ambient.identity.roots import Authority
from ambient.identity.signing import ServerCertificate, Signer

SERVING_LIFETIME = profile.DEFAULT_LIFETIME  # of the replica's own certificate; renewed at half of it
LONGEST_NAP_S = 3600.0  # the wall clock may be set while we wait by the other one

_log = logging.getLogger(__name__)


class ControlCA:
    def __init__(
        self,
        source: AsyncGenerator[Authority | Signer | CaUnusable, None],
        names: Sequence[str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        """`source`: the Secret's or the mounted files' watch. `names`: DNS names by which agents know this replica."""
        self._source = source
        self._names = tuple(names)
        self._now = now
        self._rng = rng or random.Random()
        self._signer: Signer | None = None
        self._serving: ServerCertificate | None = None
        self._renew_at = datetime.min.replace(tzinfo=UTC)
        self._news = asyncio.Event()  # of this signer; the next one has an event of its own
        self.error = "nothing has been read yet"  # why the newest state is not in use; empty: it is

    async def run(self) -> None:
        """Follow the source and renew the replica's own certificate until cancelled."""
        async with asyncio.TaskGroup() as tasks, contextlib.aclosing(self._source) as source:
            tasks.create_task(self._renew(), name="ca: own certificate")
            async for found in source:
                if isinstance(found, CaUnusable):
                    self.error = str(found)
                    _log.warning("no CA to sign by%s: %s", " but the last one" if self._signer else "", found)
                else:
                    self.error = ""
                    self._use(signing.by_root(found) if isinstance(found, Authority) else found)
            raise RuntimeError("the CA's source ended")

    @property
    def is_ready(self) -> bool:
        """Certificates can be had, our own included."""
        return self._serving is not None

    async def ready(self) -> None:
        """Wait until certificates can be had, our own included."""
        while self._serving is None:
            await self._news.wait()

    def serving(self) -> ServerCertificate:
        """The newest certificate of this replica. For any thread. Raises IssuingFailed before ready()."""
        if self._serving is None:
            raise IssuingFailed(f"the CA is not ready: {self.error}")
        return self._serving

    def sign(self, request: SigningRequest, lifetime: timedelta) -> Issued:
        """A workload's certificate; who may have it is not asked here. Raises IssuingFailed."""
        if self._signer is None:
            raise IssuingFailed(f"the CA is not ready: {self.error}")
        try:
            return self._signer.workload(request, lifetime, self._now())
        except profile.LifetimeRefused as error:
            raise IssuingFailed(str(error)) from error

    async def watch_roots(self) -> AsyncGenerator[bytes, None]:
        """The trusted roots, as soon as there are any, and again after every change. Never ends."""
        known = b""
        while True:
            news = self._news
            if self._signer is not None and self._signer.roots_pem != known:
                known = self._signer.roots_pem
                yield known
            await news.wait()

    def _use(self, signer: Signer) -> None:
        if signer == self._signer:
            return
        former, self._signer = self._signer, signer
        if former is None or former.certificate != signer.certificate:
            _log.info("certificates are signed by %s from now on", signer.id)
            self._renew_at = self._now()  # the former's may be trusted no longer soon
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _renew(self) -> None:
        while True:
            news, now = self._news, self._now()
            if self._signer is not None and now >= self._renew_at:
                self._issue_own(self._signer, now)
                news = self._news
            left = LONGEST_NAP_S if self._signer is None else (self._renew_at - now).total_seconds()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(left, 0.001), LONGEST_NAP_S)):
                    await news.wait()

    def _issue_own(self, signer: Signer, now: datetime) -> None:
        try:
            self._serving = signer.server(self._names, SERVING_LIFETIME, now)
        except profile.LifetimeRefused as error:
            self.error = f"no certificate for {self._names[0]}: {error}"
            _log.error("%s", self.error)
            self._renew_at = schedule.retry_at(now, 7, self._rng)
        else:
            self._renew_at = schedule.renew_at(now, self._serving.not_after, self._rng)
            self._tell()
