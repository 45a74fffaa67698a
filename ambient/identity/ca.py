"""Who signs: the Issuer every certificate comes from, and the embedded CA, which is one without a server.

The embedded CA signs whatever the process that opened its directory asks for: whoever can read that directory is
the CA. It keeps no list of what it signed; certificates are short-lived instead of revoked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import watchfiles
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.identity import ca_dir, profile, roots, spiffe
from ambient.identity.ca_dir import CaUnusable
from ambient.model.mesh import Identity

LOOK_AGAIN_MS = 10_000  # for a bundle that changed without the kernel telling us (network file systems, lost watches)


class IssuingFailed(Exception):
    """No certificate, or no roots, this time. Worth another try; the text says what was tried and what to look at."""


@dataclass(frozen=True, slots=True)
class Issued:
    chain_pem: bytes  # leaf first, no root
    roots_pem: bytes  # all that is trusted at this moment


class Issuer(Protocol):
    async def issue(self, csr_pem: bytes, identity: Identity, lifetime: timedelta) -> Issued:
        """Sign the request for `identity`. Raises IssuingFailed, and nothing else that may pass by itself."""

    def watch_roots(self) -> AsyncGenerator[bytes, None]:
        """The trusted roots (well-formed PEM) now, and again after every change. Raises IssuingFailed."""


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
            ca._load()
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
            authority = self._load()
            key = _checked_request(csr_pem, identity, self._trust_domain)
            leaf = profile.leaf(
                key,
                identity,
                signer=authority.signer.certificate,
                signer_key=authority.signing_key,
                now=self._clock(),
                lifetime=lifetime,
            )
        except (CaUnusable, ValueError) as error:
            raise IssuingFailed(f"no certificate for {identity}: {error}") from error
        return Issued(profile.pem(leaf), authority.bundle_pem)

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
        return self._step(lambda authority: roots.add_root(authority, self._clock()))

    def switch_signer(self, *, settle: timedelta = roots.SETTLE) -> str:
        """Step 2; returns the id of the root that signs from now on."""
        return self._step(lambda authority: roots.switch_signer(authority, self._clock(), settle=settle))

    def drop_old_root(self, *, longest: timedelta = profile.MAX_LIFETIME) -> str:
        """Step 3; returns the id of the root that is left."""
        return self._step(lambda authority: roots.drop_old(authority, self._clock(), longest=longest))

    def status(self) -> list[dict[str, str]]:
        """One row per trusted root, the signer first. Raises CaUnusable."""
        authority = self._load()
        role = {id(authority.signer): "signs", id(authority.coming): "will sign", id(authority.old): "to be dropped"}
        return [
            {
                "root": each.id,
                "role": role[id(each)],
                "added_at": f"{each.added_at:%Y-%m-%dT%H:%M:%SZ}",
                "not_after": f"{each.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            }
            for each in authority.trusted
        ]

    def _step(self, change: Callable[[roots.Authority], roots.Authority]) -> str:
        with ca_dir.locked(self._folder):
            authority = change(self._load())
            ca_dir.save(self._folder, authority)
        return (authority.coming or authority.signer).id

    def _bundle(self) -> bytes:
        try:
            return self._load().bundle_pem
        except CaUnusable as error:
            raise IssuingFailed(f"the trusted roots cannot be read: {error}") from error

    def _load(self) -> roots.Authority:
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


def _checked_request(csr_pem: bytes, identity: Identity, trust_domain: str) -> ec.EllipticCurvePublicKey:
    """The key of a request that proves its possession and asks for `identity` and nothing beside. Raises ValueError."""
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        extensions = list(csr.extensions)
        key = csr.public_key()
        signed = csr.is_signature_valid
    except (TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(f"the request cannot be read: {error}") from error
    if spiffe.checked(identity).trust_domain != trust_domain:
        raise ValueError(f"this CA is of the trust domain {trust_domain!r}")
    if not signed:
        raise ValueError("the request is not signed by its own key")
    names = [name for each in extensions if isinstance(each.value, x509.SubjectAlternativeName) for name in each.value]
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the request's key is not ECDSA P-256")  # noqa: TRY004 - the request is wrong, not our call
    if len(extensions) != 1 or names != [x509.UniformResourceIdentifier(str(identity))] or list(csr.subject):
        raise ValueError("the request must ask for the one URI name of its identity, no subject, nothing else")
    return key
