"""An issuer whose moods are the test's to choose. What it signs is real, by a real root, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.identity import profile, roots
from ambient.identity.ca import Issued, IssuingFailed
from ambient.model.mesh import Identity

from . import virtual


class MoodyIssuer:
    def __init__(self, *, takes: float = 0.0) -> None:
        self.authority = roots.found("cluster.local", virtual.EPOCH)
        self.takes = takes  # seconds an answer takes
        self.broken = ""  # why it issues nothing; empty: it does
        self.silent = False  # it never answers
        self.asked: list[tuple[float, Identity]] = []
        self.under_way = 0
        self.most_under_way = 0
        self._news = asyncio.Condition()

    async def issue(self, csr_pem: bytes, identity: Identity, lifetime: timedelta) -> Issued:
        self.asked.append((asyncio.get_running_loop().time(), identity))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await (asyncio.Event().wait() if self.silent else asyncio.sleep(self.takes))
        finally:
            self.under_way -= 1
        if self.broken:
            raise IssuingFailed(self.broken)
        key = x509.load_pem_x509_csr(csr_pem).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        leaf = profile.leaf(
            key,
            identity,
            signer=self.authority.signer.certificate,
            signer_key=self.authority.signing_key,
            now=virtual.now(),
            lifetime=lifetime,
        )
        return Issued(profile.pem(leaf), self.authority.bundle_pem)

    async def watch_roots(self) -> AsyncGenerator[bytes, None]:
        while True:
            if self.broken:
                raise IssuingFailed(self.broken)
            yield self.authority.bundle_pem
            async with self._news:
                await self._news.wait()

    async def become(self, authority: roots.Authority, *, quietly: bool = False) -> None:
        """Change the roots; `quietly`: the watchers hear nothing of it."""
        self.authority = authority
        if not quietly:
            async with self._news:
                self._news.notify_all()

    async def fail(self, why: str) -> None:
        """Issue nothing more, and end every watch."""
        self.broken = why
        async with self._news:
            self._news.notify_all()
