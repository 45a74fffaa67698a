"""How our certificates look: the root's and the leaf's profile. Pure: keys, names and times in, certificates out.

Source: X509-SVID.md sections 2 to 4 (SAN, key usage, basic constraints), RFC 5280 section 4.2.1.6 (a SAN beside an
empty subject is critical).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ambient.model.mesh import Identity

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey  # roots of ours are ECDSA; an intermediate may be either

ROOT_LIFETIME = timedelta(days=3650)
DEFAULT_LIFETIME = timedelta(hours=24)
MIN_LIFETIME = timedelta(seconds=5)  # below, a certificate would be renewed faster than it travels
MAX_LIFETIME = timedelta(days=7)  # a stolen key is good for no longer; a rotation waits for no longer
CLOCK_SKEW = timedelta(minutes=2)  # how far behind ours a peer's clock may be

_NO_USAGE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


class LifetimeRefused(ValueError):
    """A certificate of that lifetime is not to be had; the text gives the bounds."""


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def short_id(certificate: x509.Certificate) -> str:
    """What people call a root by: the first 16 hex digits of its SHA-256 fingerprint."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()[:16]


def issued_by(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """Whether `parent` is named as issuer and its key made the signature."""
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def root(trust_domain: str, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A new self-signed root of `trust_domain` that may sign leaves and nothing else."""
    key = new_key()
    serial = x509.random_serial_number()
    # Every root has a name of its own: with one name for all, a verifier has to guess which of them signed.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64]),  # 64: RFC 5280's upper bound
            x509.NameAttribute(NameOID.COMMON_NAME, f"Ambient root {serial:x}"[:32]),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**(_NO_USAGE | {"key_cert_sign": True, "crl_sign": True})), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def leaf(
    public_key: ec.EllipticCurvePublicKey,
    identity: Identity,
    *,
    signer: x509.Certificate,
    signer_key: SigningKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """The certificate of `identity`, for `lifetime` or what is left of the signer. Raises LifetimeRefused."""
    names = [x509.UniformResourceIdentifier(str(identity))]
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    return _end_entity(public_key, names, purposes, signer, signer_key, now, lifetime)


def server(
    public_key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    *,
    signer: x509.Certificate,
    signer_key: SigningKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """A TLS server's certificate for DNS `names`: it has no SPIFFE ID, so no workload takes it for another.

    Raises LifetimeRefused.
    """
    dns = [x509.DNSName(name) for name in names]
    return _end_entity(public_key, dns, [ExtendedKeyUsageOID.SERVER_AUTH], signer, signer_key, now, lifetime)


def _end_entity(
    public_key: ec.EllipticCurvePublicKey,
    names: Sequence[x509.GeneralName],
    purposes: Sequence[x509.ObjectIdentifier],
    signer: x509.Certificate,
    signer_key: SigningKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    if not MIN_LIFETIME <= lifetime <= MAX_LIFETIME:
        raise LifetimeRefused(f"a lifetime of {lifetime} was asked for; the CA gives {MIN_LIFETIME} to {MAX_LIFETIME}")
    not_after = min(now + lifetime, signer.not_valid_after_utc)
    if not_after - now < MIN_LIFETIME:
        raise LifetimeRefused(
            f"the CA's certificate {short_id(signer)} ends at {signer.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ} and its "
            "leaves must not outlive it: rotate the root, or renew the mounted intermediate"
        )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(signer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - CLOCK_SKEW, signer.not_valid_before_utc))
        .not_valid_after(not_after)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**(_NO_USAGE | {"digital_signature": True})), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(_key_identifier(signer), critical=False)
        .sign(signer_key, hashes.SHA256())
    )


def _key_identifier(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """How the signer names its own key, which others may compute otherwise than we do: verifiers compare the two."""
    try:
        own = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
