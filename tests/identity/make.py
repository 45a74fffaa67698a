"""Builders: identities, a CA in a directory, and leaves that are wrong in exactly one respect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from ambient.identity import profile, roots, svid
from ambient.identity.svid import Svid
from ambient.model.mesh import Identity

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
NO_USAGE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


def utc_now() -> datetime:
    return datetime.now(UTC)


def an_identity(account: str = "web", *, namespace: str = "shop", domain: str = "cluster.local") -> Identity:
    return Identity(domain, namespace, account)


def an_authority(domain: str = "cluster.local", *, now: datetime | None = None) -> roots.Authority:
    return roots.found(domain, now or utc_now())


def an_svid(
    identity: Identity | None = None,
    *,
    authority: roots.Authority,
    trusts: bytes | None = None,
    now: datetime | None = None,
) -> Svid:
    """What an agent holds that asked `authority`, and knows the roots `trusts`."""
    identity, now = identity or an_identity(), now or utc_now()
    key, _ = svid.request(identity)
    leaf = profile.leaf(
        key.public_key(),
        identity,
        signer=authority.signer.certificate,
        signer_key=authority.signing_key,
        now=now,
        lifetime=HOUR,
    )
    return Svid(
        identity=identity,
        chain_pem=profile.pem(leaf),
        key_pem=profile.key_pem(key),
        roots_pem=authority.bundle_pem if trusts is None else trusts,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A leaf as we would issue it, unless told otherwise."""

    names: Sequence[x509.GeneralName] = (x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/web"),)
    begins: timedelta = -HOUR
    ends: timedelta = HOUR
    ca: bool | None = False  # None: the extension is missing
    usage: Sequence[str] | None = ("digital_signature",)
    purposes: Sequence[ObjectIdentifier] | None = BOTH
    key: ec.EllipticCurvePrivateKey = field(default_factory=profile.new_key)

    def sign(self, authority: roots.Authority, *, now: datetime | None = None) -> x509.Certificate:
        now = now or utc_now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(authority.signer.certificate.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + self.begins)
            .not_valid_after(now + self.ends)
        )
        if self.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(self.names), critical=True)
        if self.ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=self.ca, path_length=None), critical=True)
        if self.usage is not None:
            usage = x509.KeyUsage(**(NO_USAGE | dict.fromkeys(self.usage, True)))
            builder = builder.add_extension(usage, critical=True)
        if self.purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        return builder.sign(authority.signing_key, hashes.SHA256())


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def first(chain_pem: bytes) -> x509.Certificate:
    """The leaf of a chain."""
    return x509.load_pem_x509_certificates(chain_pem)[0]
