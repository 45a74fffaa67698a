"""A CA of somebody else's, mounted as files by the names cert-manager gives them, and followed as they are renewed.

tls.crt  the certificate that signs, then what leads from it towards a root
tls.key  its key, ECDSA or RSA
ca.crt   the trusted roots; more than one while they are replaced
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
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
LOOK_AGAIN_MS = 10_000  # for files that changed without the kernel telling us, and for what has ended by now
_MALFORMED = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


def load(folder: Path, now: datetime) -> Signer:
    """What the files are at this moment. Raises CaUnusable, naming the one that is wrong."""
    chain = _certificates(folder / CERTIFICATE)
    roots = _certificates(folder / ROOTS)
    key = _key(folder / KEY)
    if key.public_key() != chain[0].public_key():
        raise CaUnusable(f"{folder / KEY} is not the key of the certificate in {folder / CERTIFICATE}")
    try:
        line = _line(folder, chain, roots)
        for below, each in enumerate(line):
            _check(folder, each, below, now)
    except _MALFORMED as error:
        raise CaUnusable(f"what is in {folder / CERTIFICATE} cannot be read as certificates: {error}") from error
    return Signer(
        certificate=chain[0],
        key=key,
        roots_pem=b"".join(profile.pem(root) for root in roots),
        above_pem=b"".join(profile.pem(each) for each in line[:-1]),
    )


def _line(folder: Path, chain: list[x509.Certificate], roots: list[x509.Certificate]) -> list[x509.Certificate]:
    """From the certificate that signs to its root. Raises CaUnusable."""
    line = list(itertools.takewhile(lambda each: each not in roots, chain))
    if len(line) < len(chain):
        line.append(chain[len(line)])
    for child, parent in itertools.pairwise(line):
        if not profile.issued_by(child, parent):
            raise CaUnusable(f"{folder / CERTIFICATE} is not in order, from the one that signs towards a root")
    if line[-1] not in roots:
        issuers = [root for root in roots if profile.issued_by(line[-1], root)]
        if not issuers:
            where = f"which is not in {folder / ROOTS}"
            raise CaUnusable(f"the certificates in {folder / CERTIFICATE} lead to {_name(line[-1].issuer)}, {where}")
        line.append(issuers[0])
    if line[-1].issuer != line[-1].subject:
        raise CaUnusable(
            f"{_name(line[-1].subject)} in {folder / ROOTS} is no root, {_name(line[-1].issuer)} has issued it: put "
            "that one there, peers trust no chain that does not end in a root"
        )
    return line


def _check(folder: Path, certificate: x509.Certificate, below: int, now: datetime) -> None:
    """Whether peers would let it vouch for what is below it: so many CAs and a workload. Raises CaUnusable."""
    what = f"{_name(certificate.subject)} in {folder}"
    depth = _depth(certificate)
    if depth is None:
        raise CaUnusable(f"{what} is no CA's certificate: a cert-manager Certificate needs isCA: true")
    if depth < below:
        raise CaUnusable(
            f"{what} allows a path of {depth} CAs below it (pathLenConstraint), and there are {below}: let a CA that "
            "may have more sign, or sign with this one itself"
        )
    if now < certificate.not_valid_before_utc:
        raise CaUnusable(f"{what} begins at {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}: is our clock right?")
    if now >= certificate.not_valid_after_utc:
        raise CaUnusable(f"{what} ended at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}: renew it")


async def watch(
    folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncGenerator[Signer | CaUnusable, None]:
    """What signs now, and after every change; why nothing can instead. Never ends by itself."""
    last: Signer | str | None = None
    changes = watchfiles.awatch(
        folder, watch_filter=None, rust_timeout=LOOK_AGAIN_MS, yield_on_timeout=True, recursive=False
    )
    async with contextlib.aclosing(changes):
        while True:
            try:
                found = load(folder, now())
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


def _depth(certificate: x509.Certificate) -> float | None:
    """How many CAs may be below it; None: it is none itself."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
    if not constraints.ca or not usage.key_cert_sign:
        return None
    return math.inf if constraints.path_length is None else constraints.path_length


def _name(name: x509.Name) -> str:
    return repr(name.rfc4514_string())
