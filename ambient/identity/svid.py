"""X.509 SVIDs: asking for one, taking the answer, and reading the one a peer shows.

Keys are bytes in memory and never leave it by this module. Whether a chain leads to a trusted root is OpenSSL's to say
when a peer connects; everything OpenSSL does not look at (who is named, by whom, how often) is said here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from ambient.identity import profile, spiffe
from ambient.model.mesh import Identity

# What reading a certificate raises when its bytes are not what they say.
_MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class UntrustedPeer(Exception):
    """The peer's certificate does not make it one of us. `reason` is stable snake_case; the text, what was found."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class WrongCertificate(Exception):
    """An issuer answered with something that is not the certificate asked for; the text says in what it differs."""


@dataclass(frozen=True, slots=True)
class Svid:
    """A workload's own certificate, its key, and the roots by which it judges others. Times are aware UTC."""

    identity: Identity
    chain_pem: bytes  # leaf first, no root
    key_pem: bytes = field(repr=False)
    roots_pem: bytes
    not_before: datetime
    not_after: datetime
    serial: str = ""  # hex
    signed_by: str = ""  # profile.short_id() of the root


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    identity: Identity
    not_after: datetime
    serial: str


def request(identity: Identity) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A new key and a PEM request for `identity`. Raises ValueError if that cannot be a SPIFFE ID."""
    key = profile.new_key()
    name = x509.UniformResourceIdentifier(str(spiffe.checked(identity)))
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, csr.public_bytes(serialization.Encoding.PEM)


def receive(
    identity: Identity, key: ec.EllipticCurvePrivateKey, chain_pem: bytes, roots_pem: bytes, *, now: datetime
) -> Svid:
    """Make an Svid of what an issuer answered, or raise WrongCertificate.

    Peers would find the same faults, one handshake at a time and far from the cause.
    """
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
        roots = x509.load_pem_x509_certificates(roots_pem)
        leaf = chain[0]
        public = leaf.public_key()
        peer = _read(leaf, identity.trust_domain, now)
    except UntrustedPeer as error:
        raise WrongCertificate(f"the certificate issued for {identity} is of no use: {error}") from error
    except _MALFORMED as error:
        raise WrongCertificate(f"what was issued for {identity} cannot be read: {error}") from error
    if peer.identity != identity:
        raise WrongCertificate(f"asked for {identity}, got a certificate of {peer.identity}")
    if public != key.public_key():
        raise WrongCertificate(f"the certificate issued for {identity} is of another key than the one in the request")
    return Svid(
        identity=identity,
        chain_pem=b"".join(profile.pem(each) for each in chain),
        key_pem=profile.key_pem(key),
        roots_pem=roots_pem,
        not_before=leaf.not_valid_before_utc,
        not_after=min(each.not_valid_after_utc for each in chain),
        serial=peer.serial,
        signed_by=profile.short_id(_anchor(identity, chain, roots)),
    )


def read_peer(der: bytes, trust_domain: str, *, now: datetime | None = None) -> PeerCertificate:
    """Who the peer is that showed this leaf, whose chain OpenSSL has already verified. Raises UntrustedPeer."""
    try:
        return _read(x509.load_der_x509_certificate(der), trust_domain, now or datetime.now(UTC))
    except _MALFORMED as error:
        raise UntrustedPeer("malformed_certificate", f"the certificate cannot be read: {error}") from error


def _read(leaf: x509.Certificate, trust_domain: str, now: datetime) -> PeerCertificate:
    """X509-SVID.md section 5.2: the leaf's own checks, those that say the most about the peer first."""
    extensions = leaf.extensions
    if leaf.serial_number <= 0:
        raise UntrustedPeer("malformed_certificate", "the certificate's serial number is not positive")
    if _is_ca(extensions):
        raise UntrustedPeer("ca_certificate", "a CA certificate was shown where a workload's belongs")
    identity = _name(extensions)
    if identity.trust_domain != trust_domain:
        raise UntrustedPeer("foreign_trust_domain", f"{identity} is not of the trust domain {trust_domain!r}")
    _check_usage(extensions, identity)
    if now < leaf.not_valid_before_utc:
        raise UntrustedPeer("not_yet_valid", f"the certificate of {identity} begins at {leaf.not_valid_before_utc}")
    if now >= leaf.not_valid_after_utc:
        raise UntrustedPeer("expired", f"the certificate of {identity} ended at {leaf.not_valid_after_utc}")
    return PeerCertificate(identity, leaf.not_valid_after_utc, f"{leaf.serial_number:x}")


def _is_ca(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _name(extensions: x509.Extensions) -> Identity:
    """The one URI name. Two would let the peer be whoever suits, so the first is not taken: none is."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if not uris:
        raise UntrustedPeer("no_spiffe_id", "the certificate has no URI name, so it says nothing about who this is")
    if len(uris) > 1:
        raise UntrustedPeer("several_uri_names", f"the certificate has {len(uris)} URI names; exactly one is allowed")
    try:
        return spiffe.parse(uris[0])
    except ValueError as error:
        raise UntrustedPeer("bad_spiffe_id", str(error)[:400]) from error


def _check_usage(extensions: x509.Extensions, identity: Identity) -> None:
    """TLS 1.3 needs signing only, and OpenSSL lets a key-agreement-only certificate pass."""
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise UntrustedPeer(
            "wrong_key_usage", f"the certificate of {identity} does not say what its key is for"
        ) from None
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise UntrustedPeer(
            "wrong_key_usage", f"the key of {identity} must be for digital signatures, and for no CA's work: {usage}"
        )
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # X509-SVID.md section 4.4: then it is for everything
    if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH} <= set(purposes):
        raise UntrustedPeer("wrong_key_usage", f"the certificate of {identity} is not for both TLS client and server")


def _anchor(identity: Identity, chain: list[x509.Certificate], roots: list[x509.Certificate]) -> x509.Certificate:
    """The root the chain ends in. Raises WrongCertificate."""
    for child, parent in itertools.pairwise(chain):
        if not profile.issued_by(child, parent):
            raise WrongCertificate(f"the chain issued for {identity} is not in order, leaf first")
    for candidate in roots:
        if candidate == chain[-1] or profile.issued_by(chain[-1], candidate):
            return candidate
    known = ", ".join(profile.short_id(each) for each in roots)
    raise WrongCertificate(
        f"the chain issued for {identity} leads to {chain[-1].issuer.rfc4514_string()!r}, none of the roots that came "
        f"with it ({known}): its peers would refuse it"
    )
