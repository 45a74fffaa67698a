"""A CA's roots as a value: which are trusted, which one signs, and the three steps that replace it. Pure, no I/O.

    add_root      the new root is trusted, the old one signs     every agent learns the new root
    switch_signer the new root signs, both are trusted           every workload gets a certificate of it
    drop_old      the old root is trusted no longer

No step leaves two workloads that refuse each other, if every agent has followed the step before: so each step is
refused until that is certain by the clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.identity import profile

SETTLE = timedelta(seconds=60)  # agents notice a new bundle at once, and look every 10 s in case they did not


class RotationRefused(Exception):
    """This step would cause an outage, or is not the next one; the text says what to do instead.

    `until`: when it will be possible, if only time is lacking.
    """

    def __init__(self, text: str, until: datetime | None = None) -> None:
        super().__init__(text)
        self.until = until


@dataclass(frozen=True, slots=True)
class Root:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None = field(repr=False)  # None: it signs no longer, its key is destroyed
    added_at: datetime

    @property
    def id(self) -> str:
        return profile.short_id(self.certificate)


@dataclass(frozen=True, slots=True)
class Authority:
    trust_domain: str
    signer: Root
    switched_at: datetime  # since when `signer` signs
    coming: Root | None = None  # trusted, and to sign next
    old: Root | None = None  # trusted, and to be dropped next

    @property
    def trusted(self) -> tuple[Root, ...]:
        """Every root of the bundle, the signer first."""
        return tuple(each for each in (self.signer, self.coming, self.old) if each is not None)

    @property
    def newest(self) -> Root:
        return self.coming or self.signer

    @property
    def signing_key(self) -> ec.EllipticCurvePrivateKey:
        """Raises ValueError for a state that no step leads to."""
        if self.signer.key is None:
            raise ValueError(f"root {self.signer.id} is to sign and has no key")
        return self.signer.key

    @property
    def bundle_pem(self) -> bytes:
        return b"".join(profile.pem(each.certificate) for each in self.trusted)

    def rows(self) -> list[dict[str, str]]:
        """For people: each trusted root and what it is there for, the signer first."""
        role = {id(self.signer): "signs", id(self.coming): "will sign", id(self.old): "to be dropped"}
        return [
            {
                "root": each.id,
                "role": role[id(each)],
                "added_at": _utc(each.added_at),
                "not_after": _utc(each.certificate.not_valid_after_utc),
            }
            for each in self.trusted
        ]


def found(trust_domain: str, now: datetime) -> Authority:
    """A new CA with one root."""
    return Authority(trust_domain, _new(trust_domain, now), switched_at=now)


def add_root(authority: Authority, now: datetime) -> Authority:
    """Step 1. Raises RotationRefused while an earlier rotation is not finished."""
    if authority.coming is not None:
        raise RotationRefused(
            f"root {authority.coming.id} was added already and waits to sign: switch the signer to it"
        )
    if authority.old is not None:
        raise RotationRefused(f"root {authority.old.id} of the last rotation is still trusted: drop it first")
    return replace(authority, coming=_new(authority.trust_domain, now))


def switch_signer(authority: Authority, now: datetime, *, settle: timedelta = SETTLE) -> Authority:
    """Step 2; the old root's key is gone with it. `settle`: how long an agent may take to learn of a new root."""
    coming = authority.coming
    if coming is None:
        raise RotationRefused("there is no root to switch to: add one first")
    if now < coming.added_at + settle:
        raise RotationRefused(
            f"root {coming.id} was added at {_utc(coming.added_at)} and not every agent may trust it yet: "
            f"switch after {_utc(coming.added_at + settle)}",
            coming.added_at + settle,
        )
    return replace(authority, signer=coming, switched_at=now, coming=None, old=replace(authority.signer, key=None))


def drop_old(authority: Authority, now: datetime, *, longest: timedelta = profile.MAX_LIFETIME) -> Authority:
    """Step 3. `longest`: the longest lifetime any agent asks for; zero if the old root is compromised and an outage is
    the lesser evil."""
    if authority.old is None:
        raise RotationRefused("there is no old root to drop")
    if now < authority.switched_at + longest:
        raise RotationRefused(
            f"root {authority.old.id} signed until {_utc(authority.switched_at)} and its certificates may live for "
            f"{longest}: drop it after {_utc(authority.switched_at + longest)}",
            authority.switched_at + longest,
        )
    return replace(authority, old=None)


def advance(
    authority: Authority, now: datetime, *, settle: timedelta = SETTLE, longest: timedelta = profile.MAX_LIFETIME
) -> Authority:
    """The next step of a rotation, which is the first one when none is under way. Raises RotationRefused."""
    if authority.old is not None:
        return drop_old(authority, now, longest=longest)
    if authority.coming is not None:
        return switch_signer(authority, now, settle=settle)
    return add_root(authority, now)


def checked_bundle(pem: bytes) -> bytes:
    """Return `pem` if it is a bundle of roots. Raises ValueError otherwise."""
    x509.load_pem_x509_certificates(pem)
    return pem


def _new(trust_domain: str, now: datetime) -> Root:
    key, certificate = profile.root(trust_domain, now)
    return Root(certificate, key, added_at=now)


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
