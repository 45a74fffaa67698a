"""What signs at this moment, a root of our own or an intermediate of somebody else's CA, and what it signs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from ambient.identity import profile
from ambient.identity.csr import SigningRequest
from ambient.identity.issuer import Issued
from ambient.identity.roots import Authority


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A server's own certificate, for clients that know it by a DNS name. Times are aware UTC."""

    key_pem: bytes = field(repr=False)
    chain_pem: bytes
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Signer:
    certificate: x509.Certificate
    key: profile.SigningKey = field(repr=False, compare=False)
    roots_pem: bytes  # all that is trusted while this signs
    above_pem: bytes = b""  # what a leaf needs beside it to lead to a root; nothing when a root signs

    @property
    def id(self) -> str:
        return profile.short_id(self.certificate)

    def workload(self, request: SigningRequest, lifetime: timedelta, now: datetime) -> Issued:
        """The certificate of a workload. Raises profile.LifetimeRefused."""
        leaf = profile.leaf(
            request.key,
            request.identity,
            signer=self.certificate,
            signer_key=self.key,
            now=now,
            lifetime=lifetime,
        )
        return Issued(profile.pem(leaf) + self.above_pem, self.roots_pem)

    def server(self, names: Sequence[str], lifetime: timedelta, now: datetime) -> ServerCertificate:
        """A new key and its certificate for the DNS `names`. Raises profile.LifetimeRefused."""
        key = profile.new_key()
        leaf = profile.server(
            key.public_key(), names, signer=self.certificate, signer_key=self.key, now=now, lifetime=lifetime
        )
        return ServerCertificate(profile.key_pem(key), profile.pem(leaf) + self.above_pem, leaf.not_valid_after_utc)


def by_root(authority: Authority) -> Signer:
    """The signer of a CA of our own."""
    return Signer(authority.signer.certificate, authority.signing_key, authority.bundle_pem)
