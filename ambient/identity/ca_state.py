"""A CA's roots and keys as bytes, and back: what is kept in the CA directory's file or the cluster's Secret. Pure."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.identity import profile
from ambient.identity.roots import Authority, Root

_VERSION = 1


class CaUnusable(Exception):
    """Where the CA is kept there is none, or none that may be used; the text names the place and the remedy."""


def encode(authority: Authority) -> bytes:
    """Holds the signing keys: a secret."""
    return json.dumps(
        {
            "version": _VERSION,
            "trust_domain": authority.trust_domain,
            "switched_at": authority.switched_at.isoformat(),
            "signer": _encode_root(authority.signer),
            "coming": _encode_root(authority.coming),
            "old": _encode_root(authority.old),
        },
        indent=1,
    ).encode()


def _encode_root(root: Root | None) -> dict[str, str | None] | None:
    if root is None:
        return None
    return {
        "id": root.id,  # for people; not read back
        "added_at": root.added_at.isoformat(),
        "certificate": profile.pem(root.certificate).decode(),
        "key": None if root.key is None else profile.key_pem(root.key).decode(),
    }


def decode(content: bytes) -> Authority:
    """Raises ValueError, saying what is wrong, for anything encode() does not make."""
    try:
        return _decode(json.loads(content))
    except (KeyError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _decode(state: dict[str, Any]) -> Authority:
    if state["version"] != _VERSION:
        raise ValueError(f"version {state['version']!r}, expected {_VERSION}")
    signer, coming, old = (_decode_root(name, state[name]) for name in ("signer", "coming", "old"))
    if signer is None or signer.key is None or (coming is not None and coming.key is None):
        raise ValueError("a root that signs, or is to sign, has no key")
    return Authority(
        trust_domain=str(state["trust_domain"]),
        signer=signer,
        switched_at=datetime.fromisoformat(state["switched_at"]),
        coming=coming,
        old=old,
    )


def _decode_root(name: str, entry: dict[str, str | None] | None) -> Root | None:
    if entry is None:
        return None
    certificate = x509.load_pem_x509_certificate(str(entry["certificate"]).encode())
    added_at = datetime.fromisoformat(str(entry["added_at"]))
    if entry["key"] is None:
        return Root(certificate, None, added_at)
    key = serialization.load_pem_private_key(entry["key"].encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError(f"the key of {name!r} is not its certificate's")
    return Root(certificate, key, added_at)
