"""A CA of somebody else's, mounted as files by the names cert-manager gives them, and followed as they are renewed.

tls.crt  the certificate that signs, then what leads from it towards a root
tls.key  its key, ECDSA or RSA
ca.crt   the trusted roots; more than one while they are replaced
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncGenerator
from pathlib import Path

import watchfiles
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ambient.identity import profile
from ambient.identity.ca_state import CaUnusable
from ambient.identity.signing import Signer

CERTIFICATE, KEY, ROOTS = "tls.crt", "tls.key", "ca.crt"
LOOK_AGAIN_MS = 10_000  # for files that changed without the kernel telling us


def load(folder: Path) -> Signer:
    """What the files are at this moment. Raises CaUnusable, naming the one that is wrong."""
    chain = _certificates(folder / CERTIFICATE)
    roots = _certificates(folder / ROOTS)
    key = _key(folder / KEY)
    if key.public_key() != chain[0].public_key():
        raise CaUnusable(f"{folder / KEY} is not the key of the certificate in {folder / CERTIFICATE}")
    if not _may_sign(chain[0]):
        raise CaUnusable(f"{folder / CERTIFICATE} is no CA's certificate: a cert-manager Certificate needs isCA: true")
    above = list(itertools.takewhile(lambda each: each not in roots, chain))
    line = [*above, *chain[len(above) : len(above) + 1]]
    for child, parent in itertools.pairwise(line):
        if not profile.issued_by(child, parent):
            raise CaUnusable(f"{folder / CERTIFICATE} is not in order, from the one that signs towards a root")
    if line[-1] not in roots and not any(profile.issued_by(line[-1], root) for root in roots):
        raise CaUnusable(
            f"the certificates in {folder / CERTIFICATE} lead to {line[-1].issuer.rfc4514_string()!r}, which is not in "
            f"{folder / ROOTS}"
        )
    return Signer(
        certificate=chain[0],
        key=key,
        roots_pem=b"".join(profile.pem(root) for root in roots),
        above_pem=b"".join(profile.pem(each) for each in above),
    )


async def watch(folder: Path) -> AsyncGenerator[Signer | CaUnusable, None]:
    """What signs now, and after every change; why nothing can instead. Never ends by itself."""
    last: Signer | str | None = None
    changes = watchfiles.awatch(
        folder, watch_filter=None, rust_timeout=LOOK_AGAIN_MS, yield_on_timeout=True, recursive=False
    )
    async with contextlib.aclosing(changes):
        while True:
            try:
                found = load(folder)
            except CaUnusable as error:
                if str(error) != last:
                    last = str(error)
                    yield error
            else:
                if found != last:
                    last = found
                    yield found
            await anext(changes)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CaUnusable(f"cannot read certificates from {path}: {error}") from error


def _key(path: Path) -> profile.SigningKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CaUnusable(f"cannot read a key from {path}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CaUnusable(f"the key in {path} is neither ECDSA nor RSA")
    return key


def _may_sign(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign
