"""SPIFFE IDs to the letter of the standard, narrowed to the shape of this mesh. Pure text, no certificates.

Source: SPIFFE-ID.md sections 2.1 to 2.4 (trust domain, path, length).
"""

from __future__ import annotations

import re

from ambient.model.mesh import Identity

MAX_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


def parse(uri: str) -> Identity:
    """Read a SPIFFE ID. Raises ValueError, naming the text, for anything a careful peer would not have issued."""
    if len(uri) > MAX_BYTES:
        raise ValueError(f"a SPIFFE ID of {len(uri)} bytes (at most {MAX_BYTES}): {uri[:80]!r}...")
    return checked(Identity.parse(uri))


def trust_domain(name: str) -> str:
    """Return `name` if it can be a trust domain. Raises ValueError otherwise."""
    if len(name) > MAX_TRUST_DOMAIN_BYTES or not _TRUST_DOMAIN.fullmatch(name):
        raise ValueError(f"{name[:300]!r} is no trust domain: expected 1 to {MAX_TRUST_DOMAIN_BYTES} of a-z 0-9 . _ -")
    return name


def checked(identity: Identity) -> Identity:
    """Return `identity` if its parts can stand in a SPIFFE ID. Raises ValueError otherwise.

    An Identity made from a manifest has not been through a parser: a namespace with a slash in it would be another's.
    """
    trust_domain(identity.trust_domain)
    for part in (identity.namespace, identity.service_account):
        if not _SEGMENT.fullmatch(part) or part in (".", ".."):
            raise ValueError(f"{part!r} cannot stand in a SPIFFE ID: expected A-Z a-z 0-9 . _ -, not '.' or '..'")
    if len(str(identity)) > MAX_BYTES:
        raise ValueError(f"{str(identity)[:80]!r}... is longer than the {MAX_BYTES} bytes a SPIFFE ID may have")
    return identity
