"""The certificate store: every wanted identity has a fresh certificate, as long as an issuer gives one.

Keys are here and nowhere else, in memory. A certificate is kept while its renewal fails and is never used past its
expiry; new roots reach every certificate before one they signed does. It does not know who uses a certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509

from ambient.identity import profile, schedule, svid
from ambient.identity.ca import Issuer, IssuingFailed
from ambient.identity.svid import Svid
from ambient.model.mesh import Identity

CONCURRENCY = 8  # requests under way at the issuer
ISSUE_TIMEOUT_S = 30.0  # an issuer that says nothing must not hold one of the 8 places for ever
MAX_NAP_S = 30.0  # the wall clock may be set while we wait by the other one
MIN_NAP_S = 0.001  # the event loop may wake us a little early: not to be repeated a thousand times

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Entry:
    """One wanted identity. Dropped from the store, it is dead: nobody looks at what its request brings."""

    identity: Identity
    order: int  # of its call of want()
    due: datetime  # when to ask the issuer next
    svid: Svid | None = None
    awaited: bool = False  # a connection asked for it and got none
    failures: int = 0
    error: str = ""
    request: asyncio.Task[None] | None = None

    @property
    def rank(self) -> tuple[bool, bool, datetime, int, Identity]:
        """Who goes first: those somebody waits for, those without a certificate, those that expire soonest."""
        expiry = self.svid.not_after if self.svid else datetime.min.replace(tzinfo=UTC)
        return not self.awaited, self.svid is not None, expiry, self.order, self.identity


class CertificateStore:
    def __init__(
        self,
        issuer: Issuer,
        *,
        on_change: Callable[[Svid], None],
        on_expiry: Callable[[Identity], None] = lambda _: None,
        lifetime: timedelta = profile.DEFAULT_LIFETIME,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        """`on_change`: a new certificate, or the same one with other roots. `on_expiry`: get() has none any more.

        Both are called from run() and must not block.
        """
        self._issuer = issuer
        self._on_change = on_change
        self._on_expiry = on_expiry
        self._lifetime = lifetime
        self._clock = clock
        self._rng = rng or random.Random()
        self._entries: dict[Identity, _Entry] = {}
        self._calls = 0
        self._roots_pem = b""
        self._roots: list[x509.Certificate] = []
        self._roots_error = ""
        self._wake = asyncio.Event()

    def want(self, identities: frozenset[Identity]) -> None:
        """Keep certificates of these and no others. Whoever is wanted by an earlier call is served first."""
        for gone in self._entries.keys() - identities:
            entry = self._entries.pop(gone)
            if entry.request is not None:
                entry.request.cancel()
        self._calls += 1
        for identity in sorted(identities - self._entries.keys()):
            self._entries[identity] = _Entry(identity, self._calls, due=self._clock())
        self._wake.set()

    def get(self, identity: Identity) -> Svid | None:
        """The certificate to use now. None if there is no valid one; asking puts it first in the queue."""
        entry = self._entries.get(identity)
        if entry is None:
            return None
        if entry.svid is not None and self._clock() < entry.svid.not_after:
            return entry.svid
        entry.awaited = True
        return None

    def status(self) -> list[dict[str, str | int]]:
        """One row per wanted identity, sorted. Never a key."""
        trusts = ",".join(profile.short_id(each) for each in self._roots)
        return [_row(entry, trusts, entry.error or self._roots_error) for _, entry in sorted(self._entries.items())]

    async def run(self) -> None:
        """Issue, renew and drop until cancelled. Ends by itself only through an error of ours."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_roots(), name="identity: trusted roots")
            while True:
                self._wake.clear()
                self._expire()
                self._start(tasks)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._nap()):
                        await self._wake.wait()

    def _expire(self) -> None:
        now = self._clock()
        for entry in list(self._entries.values()):
            if entry.svid is not None and now >= entry.svid.not_after:
                _log.error("the certificate of %s has expired: %s", entry.identity, entry.error or "no renewal yet")
                entry.svid = None
                self._on_expiry(entry.identity)

    def _start(self, tasks: asyncio.TaskGroup) -> None:
        now = self._clock()
        due = sorted((e for e in self._entries.values() if e.request is None and e.due <= now), key=lambda e: e.rank)
        for entry in due[: CONCURRENCY - self._under_way()]:
            entry.request = tasks.create_task(self._renew(entry), name=f"identity: {entry.identity}")

    def _under_way(self) -> int:
        return sum(entry.request is not None for entry in self._entries.values())

    def _nap(self) -> float:
        """Seconds to the next thing to do, unless something wakes us."""
        moments = [entry.svid.not_after for entry in self._entries.values() if entry.svid is not None]
        if self._under_way() < CONCURRENCY:  # otherwise the next to finish wakes us
            moments += [entry.due for entry in self._entries.values() if entry.request is None]
        first = min(moments, default=None)
        left = MAX_NAP_S if first is None else (first - self._clock()).total_seconds()
        return min(max(left, MIN_NAP_S), MAX_NAP_S)

    async def _renew(self, entry: _Entry) -> None:
        """One attempt for one identity; what it leads to is in the entry."""
        try:
            fresh = await self._obtain(entry.identity)
        except (IssuingFailed, svid.WrongCertificate, TimeoutError) as error:
            entry.failures += 1
            entry.error = str(error) or f"the issuer did not answer within {ISSUE_TIMEOUT_S:.0f} s"
            entry.due = schedule.retry_at(self._clock(), entry.failures, self._rng)
            _log.warning("%s, attempt %d; next at %s", entry.error, entry.failures, entry.due)
        else:
            entry.svid, entry.failures, entry.error, entry.awaited = fresh, 0, "", False
            entry.due = schedule.renew_at(self._clock(), fresh.not_after, self._rng)
            self._trust(fresh.roots_pem)
            self._on_change(fresh)
        finally:
            entry.request = None
            self._wake.set()

    async def _obtain(self, identity: Identity) -> Svid:
        try:
            key, csr = svid.request(identity)
        except ValueError as error:
            raise IssuingFailed(f"no certificate for {identity}: {error}") from error
        async with asyncio.timeout(ISSUE_TIMEOUT_S):
            issued = await self._issuer.issue(csr, identity, self._lifetime)
        return svid.receive(identity, key, issued.chain_pem, issued.roots_pem, now=self._clock())

    async def _follow_roots(self) -> None:
        """Hand out every bundle the issuer has, for as long as it takes to have one."""
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._issuer.watch_roots()) as bundles:
                    async for pem in bundles:
                        self._trust(pem)
                        if failures:  # the issuer is back: no need to wait the back-off out
                            self._retry_now()
                        failures, self._roots_error = 0, ""
            except IssuingFailed as error:
                self._roots_error = str(error)
            failures += 1
            now = self._clock()
            await asyncio.sleep((schedule.retry_at(now, failures, self._rng) - now).total_seconds())

    def _retry_now(self) -> None:
        for entry in self._entries.values():
            if entry.failures:
                entry.due = self._clock()
        self._wake.set()

    def _trust(self, roots_pem: bytes) -> None:
        """Give every certificate these roots; one that leads to none of them is replaced at once."""
        if roots_pem != self._roots_pem:
            self._roots = x509.load_pem_x509_certificates(roots_pem)
            self._roots_pem = roots_pem
        trusted = {profile.short_id(each) for each in self._roots}
        for entry in list(self._entries.values()):
            if entry.svid is None or entry.svid.roots_pem == roots_pem:
                continue
            entry.svid = replace(entry.svid, roots_pem=roots_pem)
            if entry.svid.signed_by not in trusted:
                entry.due = self._clock()
                self._wake.set()
            self._on_change(entry.svid)


def _row(entry: _Entry, trusts: str, error: str) -> dict[str, str | int]:
    own = entry.svid
    if own is None:
        state = "failing" if entry.failures else "pending"
    else:
        state = "renewal failing" if entry.failures else "valid"
    return {
        "identity": str(entry.identity),
        "state": state,
        "serial": own.serial if own else "",
        "not_before": _utc(own.not_before) if own else "",
        "not_after": _utc(own.not_after) if own else "",
        "next_attempt": _utc(entry.due),
        "signed_by": own.signed_by if own else "",
        "trusts": trusts,
        "failures": entry.failures,
        "error": error,
    }


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
