"""A test certificate authority: SPIFFE certificates as the mesh issues them, and every wrong kind a peer could show.

Nothing here decides whether a certificate is good; the tests say what they expect.
"""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import ssl
import tempfile
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = datetime.timedelta(hours=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A certificate with its key and the roots its owner trusts; all PEM but `der`."""

    uris: tuple[str, ...]
    cert_pem: bytes
    key_pem: bytes
    roots_pem: bytes
    der: bytes
    not_after: datetime.datetime

    @property
    def expires_ns(self) -> int:
        return int(self.not_after.timestamp() * 1e9)

    @property
    def private_number(self) -> int:
        """What makes the key secret."""
        return _key_of(self).private_numbers().private_value

    def client_context(self, *, alpn: Sequence[str] = ("h2",)) -> ssl.SSLContext:
        """A Python TLS client that shows this certificate and trusts its roots."""
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), alpn)

    def server_context(self, *, alpn: Sequence[str] = ("h2",)) -> ssl.SSLContext:
        """A Python TLS server that shows this certificate and demands one from the client."""
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), alpn)

    def _load(self, context: ssl.SSLContext, alpn: Sequence[str]) -> ssl.SSLContext:
        context.check_hostname = False  # a SPIFFE certificate names no host
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.roots_pem.decode())
        with tempfile.NamedTemporaryFile() as both:  # load_cert_chain takes nothing but paths
            both.write(self.cert_pem + self.key_pem)
            both.flush()
            context.load_cert_chain(both.name)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def write(self, folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
        """Write certificate, key and roots as files, for peers that take nothing else."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = (folder / "cert.pem", folder / "key.pem", folder / "roots.pem")
        for path, content in zip(paths, (self.cert_pem, self.key_pem, self.roots_pem), strict=True):
            path.write_bytes(content)
        return paths


class Authority:
    """A root, or an intermediate below one. Two authorities of the same name are strangers to each other."""

    def __init__(self, trust_domain: str = "cluster.local", *, parent: Authority | None = None, below: int = 0) -> None:
        """below: how many authorities may be under this one."""
        self.trust_domain = trust_domain
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{trust_domain}{' below' if parent else ''}")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(parent._own.subject if parent else name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - HOUR)
            .not_valid_after(now() + 24 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=below), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(sign_certificates=True), critical=True)
        )
        self._own = builder.sign(parent._key if parent else self._key, hashes.SHA256())
        own_pem = self._own.public_bytes(serialization.Encoding.PEM)
        self.root_pem = parent.root_pem if parent else own_pem
        self._above = own_pem + parent._above if parent else b""  # what a leaf needs beside it to lead to the root

    def spiffe(self, namespace: str, account: str) -> str:
        return f"spiffe://{self.trust_domain}/ns/{namespace}/sa/{account}"

    def svid(self, namespace: str = "shop", account: str = "web", **changes: object) -> Leaf:
        """The certificate of a workload; `changes` are those of `leaf`."""
        return self.leaf((self.spiffe(namespace, account),), **changes)  # type: ignore[arg-type]

    def leaf(
        self,
        uris: Sequence[str],
        *,
        valid_from: datetime.timedelta = -HOUR,
        valid_for: datetime.timedelta = HOUR,
        roots: Sequence[bytes] = (),
        key_of: Leaf | None = None,
    ) -> Leaf:
        """A certificate with these URI names, valid from and until these distances from now.

        roots: PEM of what its owner trusts instead of this authority.
        key_of: certify this leaf's key again instead of a new one.
        """
        key = ec.generate_private_key(ec.SECP256R1()) if key_of is None else _key_of(key_of)
        not_after = now() + valid_for
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._own.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() + valid_from)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if uris:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
            builder = builder.add_extension(names, critical=True)
        cert = builder.sign(self._key, hashes.SHA256())
        return Leaf(
            uris=tuple(uris),
            cert_pem=cert.public_bytes(serialization.Encoding.PEM) + self._above,
            key_pem=_private_pem(key),
            roots_pem=b"".join(roots) if roots else self.root_pem,
            der=cert.public_bytes(serialization.Encoding.DER),
            not_after=not_after,
        )


def _key_of(leaf: Leaf) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(leaf.key_pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
