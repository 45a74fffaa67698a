"""The embedded CA: an Issuer without a server.

The embedded CA signs whatever the process that opened its directory asks for: whoever can read that directory is
the CA. It keeps no list of what it signed; certificates are short-lived instead of revoked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import watchfiles

from ambient.identity import ca_dir, csr, profile, roots, signing, spiffe
from ambient.identity.ca_dir import CaUnusable
from ambient.identity.issuer import Issued, Issuer, IssuingFailed
from ambient.model.mesh import Identity

__all__ = ["CaUnusable", "EmbeddedCA", "Issued", "Issuer", "IssuingFailed"]

LOOK_AGAIN_MS = 10_000  # for a bundle that changed without the kernel telling us (network file systems, lost watches)


class EmbeddedCA:
    """A CA in a directory, shared by every process that can open it. Implements Issuer."""

    def __init__(self, folder: Path, trust_domain: str, clock: Callable[[], datetime]) -> None:
        """Not for callers: open() is."""
        self._folder = folder
        self._trust_domain = trust_domain
        self._clock = clock

    @classmethod
    def open(
        cls,
        folder: Path,
        trust_domain: str,
        *,
        create: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> EmbeddedCA:
        """The CA in `folder`; if there is none yet it is founded, unless `create` is false.

        Raises CaUnusable; ValueError for a bad trust domain.
        """
        ca = cls(folder, spiffe.trust_domain(trust_domain), clock)
        if not create:
            ca.load()
            return ca
        with ca_dir.locked(folder):
            authority = ca_dir.load(folder)
            if authority is None:
                ca_dir.save(folder, roots.found(trust_domain, clock()))
            else:
                ca._own(authority)
                ca_dir.publish(folder, authority)
        return ca

    async def issue(self, csr_pem: bytes, identity: Identity, lifetime: timedelta) -> Issued:
        """See Issuer. Reads a small local file and signs: microseconds, so it does not leave the event loop."""
        try:
            authority = self.load()
            request = csr.read(csr_pem)
            if request.identity != identity:
                raise ValueError(f"the request is for {request.identity}")
            if identity.trust_domain != self._trust_domain:
                raise ValueError(f"this CA is of the trust domain {self._trust_domain!r}")
            return signing.by_root(authority).workload(request, lifetime, self._clock())
        except (CaUnusable, ValueError) as error:
            raise IssuingFailed(f"no certificate for {identity}: {error}") from error

    async def watch_roots(self) -> AsyncGenerator[bytes, None]:
        """See Issuer. Woken by the kernel when the directory changes, and every 10 s in case it was not."""
        changes = watchfiles.awatch(
            self._folder, watch_filter=None, rust_timeout=LOOK_AGAIN_MS, yield_on_timeout=True, recursive=False
        )
        # The watch begins before the first look: a change between the two would wait for the next round.
        change = asyncio.create_task(_next(changes), name="identity: CA directory")
        await asyncio.sleep(0)
        known = b""
        try:
            while True:
                if (bundle := self._bundle()) != known:
                    known = bundle
                    yield known
                await change
                change = asyncio.create_task(_next(changes), name="identity: CA directory")
        except OSError as error:
            raise IssuingFailed(f"cannot watch {self._folder}: {error}") from error
        finally:
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
            await changes.aclose()

    def add_root(self) -> str:
        """Step 1 of a rotation; returns the new root's id. Raises RotationRefused or CaUnusable, as all steps do."""
        return self.step(lambda authority: roots.add_root(authority, self._clock())).newest.id

    def switch_signer(self, *, settle: timedelta = roots.SETTLE) -> str:
        """Step 2; returns the id of the root that signs from now on."""
        return self.step(lambda authority: roots.switch_signer(authority, self._clock(), settle=settle)).newest.id

    def drop_old_root(self, *, longest: timedelta = profile.MAX_LIFETIME) -> str:
        """Step 3; returns the id of the root that is left."""
        return self.step(lambda authority: roots.drop_old(authority, self._clock(), longest=longest)).newest.id

    def status(self) -> list[dict[str, str]]:
        """One row per trusted root, the signer first. Raises CaUnusable."""
        return self.load().rows()

    def step(self, change: Callable[[roots.Authority], roots.Authority]) -> roots.Authority:
        """Take a step of a rotation. Raises RotationRefused or CaUnusable, and then nothing has changed."""
        with ca_dir.locked(self._folder):
            authority = change(self.load())
            ca_dir.save(self._folder, authority)
        return authority

    def _bundle(self) -> bytes:
        try:
            return self.load().bundle_pem
        except CaUnusable as error:
            raise IssuingFailed(f"the trusted roots cannot be read: {error}") from error

    def load(self) -> roots.Authority:
        """What the directory holds at this moment, the signing keys included. Raises CaUnusable."""
        authority = ca_dir.load(self._folder)
        if authority is None:
            raise CaUnusable(
                f"{self._folder / ca_dir.STATE} is gone or never was: restore it, or restart the agents for a new CA"
            )
        return self._own(authority)

    def _own(self, authority: roots.Authority) -> roots.Authority:
        if authority.trust_domain != self._trust_domain:
            raise CaUnusable(
                f"the CA in {self._folder} is of the trust domain {authority.trust_domain!r}, not "
                f"{self._trust_domain!r}: use another directory"
            )
        return authority


async def _next(changes: AsyncGenerator[set[watchfiles.main.FileChange], None]) -> None:
    """A coroutine of its own, because create_task() takes no bare anext()."""
    await anext(changes)
