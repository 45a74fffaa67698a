"""A certificate signing request: whose name it asks for, and that it holds the key. Pure; grants nothing."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.identity import spiffe
from ambient.model.mesh import Identity

MAX_BYTES = 8192  # ours and ztunnel's have 500; a SPIFFE ID may have 2048


@dataclass(frozen=True, slots=True)
class SigningRequest:
    identity: Identity
    key: ec.EllipticCurvePublicKey


def read(csr_pem: bytes) -> SigningRequest:
    """A request that proves possession of its P-256 key and asks for one SPIFFE ID and nothing beside.

    Raises ValueError, saying what is wrong with it.
    """
    if len(csr_pem) > MAX_BYTES:
        raise ValueError(f"the request has {len(csr_pem)} bytes, more than {MAX_BYTES}")
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        extensions = list(csr.extensions)
        key = csr.public_key()
        signed = csr.is_signature_valid
    except (TypeError, ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise ValueError(f"the request cannot be read: {e}") from e
    if not signed:
        raise ValueError("the request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the request's key is not ECDSA P-256")  # noqa: TRY004 - the request is wrong, not our call
    names = [name for each in extensions if isinstance(each.value, x509.SubjectAlternativeName) for name in each.value]
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if len(extensions) != 1 or len(names) != 1 or len(uris) != 1 or list(csr.subject):
        raise ValueError("the request must ask for the one URI name of its identity, no subject, nothing else")
    return SigningRequest(spiffe.parse(uris[0]), key)
