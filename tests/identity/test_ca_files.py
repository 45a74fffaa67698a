"""A CA in files of cert-manager's: what it signs is good for peers, and what is wrong with it is named."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from ambient.identity import ca_files, csr, profile, svid
from ambient.identity.ca_state import CaUnusable
from ambient.identity.signing import Signer
from ambient.identity.svid import Svid

from . import make, tls

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
RSA = rsa.generate_private_key(65537, 2048)  # takes long: one for all tests


@dataclass(frozen=True)
class Ca:
    key: Key
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return profile.pem(self.certificate)


def a_ca(name: str, parent: Ca | None = None, *, key: Key | None = None, is_ca: bool = True, usage: bool = True) -> Ca:
    """Named, and with a key identifier of its own making, as other people's CAs have."""
    key = key or profile.new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    usages = make.NO_USAGE | {"key_cert_sign": usage, "digital_signature": not usage}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.certificate.subject if parent else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - make.HOUR)
        .not_valid_after(now + 30 * make.DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usages), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(name.encode()), critical=False)
    )
    return Ca(key, builder.sign(parent.key if parent else key, hashes.SHA256()))


ROOT = a_ca("root")
MIDDLE = a_ca("middle", ROOT)
LOW = a_ca("low", MIDDLE, key=RSA)
OTHER = a_ca("other")


def write(folder: Path, *, chain: tuple[Ca, ...], roots: tuple[Ca, ...], key: Key | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tls.crt").write_bytes(b"".join(each.pem for each in chain))
    (folder / "ca.crt").write_bytes(b"".join(each.pem for each in roots))
    (folder / "tls.key").write_bytes(profile.key_pem(key or chain[0].key))
    return folder


def issue(signer: Signer, account: str) -> Svid:
    identity, now = make.an_identity(account), datetime.now(UTC)
    key, request = svid.request(identity)
    issued = signer.workload(csr.read(request), make.HOUR, now)
    return svid.receive(identity, key, issued.chain_pem, issued.roots_pem, now=now)


@pytest.mark.parametrize(
    ("chain", "roots", "length"),
    [
        ((MIDDLE,), (ROOT,), 2),
        ((LOW, MIDDLE), (ROOT,), 3),
        ((LOW, MIDDLE, ROOT), (ROOT,), 3),
        ((MIDDLE,), (OTHER, ROOT), 2),
        ((ROOT,), (ROOT,), 1),
    ],
    ids=["an intermediate", "two of them, RSA", "with the root", "among other roots", "a root itself"],
)
def test_what_it_signs_is_good_for_peers(
    tmp_path: Path, chain: tuple[Ca, ...], roots: tuple[Ca, ...], length: int
) -> None:
    signer = ca_files.load(write(tmp_path, chain=chain, roots=roots))
    web, db = issue(signer, "web"), issue(signer, "db")
    tls.meet(web, db)  # OpenSSL's verdict
    assert len(x509.load_pem_x509_certificates(web.chain_pem)) == length


def test_it_gives_servers_a_chain_too(tmp_path: Path) -> None:
    signer = ca_files.load(write(tmp_path, chain=(LOW, MIDDLE), roots=(ROOT,)))
    own = signer.server(["a.b.svc"], make.HOUR, datetime.now(UTC))
    chain = x509.load_pem_x509_certificates(own.chain_pem)
    assert [profile.issued_by(child, parent) for child, parent in itertools.pairwise(chain)] == [True, True]


def test_no_certificate_outlives_the_intermediate(tmp_path: Path) -> None:
    signer = ca_files.load(write(tmp_path, chain=(MIDDLE,), roots=(ROOT,)))
    late = signer.certificate.not_valid_after_utc - timedelta(minutes=5)
    own = signer.server(["a.b.svc"], make.HOUR, late)
    assert own.not_after == signer.certificate.not_valid_after_utc


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_remove("tls.crt"), r"cannot read certificates from .*tls\.crt"),
        (_remove("tls.key"), r"cannot read a key from .*tls\.key"),
        (_put("ca.crt", b""), r"cannot read certificates from .*ca\.crt"),
        (_put("tls.key", b"no key"), r"cannot read a key"),
        (_put("tls.key", profile.key_pem(OTHER.key)), "is not the key of"),
        (_put("tls.key", profile.key_pem(ed25519.Ed25519PrivateKey.generate())), "neither ECDSA nor RSA"),  # type: ignore[arg-type]
        (_put("ca.crt", OTHER.pem), r"lead to 'CN=root', which is not in .*ca\.crt"),
        (lambda at: write(at, chain=(a_ca("leaf", ROOT, is_ca=False),), roots=(ROOT,)), "needs isCA: true"),
        (lambda at: write(at, chain=(a_ca("leaf", ROOT, usage=False),), roots=(ROOT,)), "is no CA's certificate"),
        (lambda at: write(at, chain=(LOW, OTHER), roots=(ROOT,)), "not in order"),
    ],
    ids=["no chain", "no key", "no roots", "bad key", "foreign key", "ed25519", "foreign", "leaf", "usage", "disorder"],
)
def test_what_is_wrong_is_named(tmp_path: Path, damage: Callable[[Path], object], says: str) -> None:
    write(tmp_path, chain=(MIDDLE,), roots=(ROOT,))
    damage(tmp_path)
    with pytest.raises(CaUnusable, match=says):
        ca_files.load(tmp_path)


def test_renewed_files_are_noticed_and_half_renewed_ones_are_told_apart(tmp_path: Path) -> None:
    async def main() -> None:
        async with contextlib.aclosing(ca_files.watch(write(tmp_path, chain=(MIDDLE,), roots=(ROOT,)))) as states:
            assert isinstance(first := await anext(states), Signer)
            assert first.certificate == MIDDLE.certificate
            coming = asyncio.ensure_future(anext(states))
            await asyncio.sleep(0.2)  # the folder is being watched
            (tmp_path / "tls.key").write_bytes(profile.key_pem(OTHER.key))
            assert isinstance(await asyncio.wait_for(coming, 1.5), CaUnusable)
            coming = asyncio.ensure_future(anext(states))
            await asyncio.sleep(0)
            write(tmp_path, chain=(OTHER,), roots=(ROOT, OTHER))
            assert isinstance(second := await asyncio.wait_for(coming, 1.5), Signer)
            assert second.certificate == OTHER.certificate

    asyncio.run(main())


def test_a_volume_of_the_kubelets_is_noticed(tmp_path: Path) -> None:
    """Its files are links by way of ..data, which is replaced whole."""
    write(tmp_path / "..one", chain=(MIDDLE,), roots=(ROOT,))
    write(tmp_path / "..two", chain=(OTHER,), roots=(OTHER,))
    (tmp_path / "..data").symlink_to("..one")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")

    async def main() -> None:
        async with contextlib.aclosing(ca_files.watch(tmp_path)) as states:
            await anext(states)
            coming = asyncio.ensure_future(anext(states))
            await asyncio.sleep(0.2)
            (tmp_path / "..data_tmp").symlink_to("..two")
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            assert isinstance(found := await asyncio.wait_for(coming, 1.5), Signer)
            assert found.certificate == OTHER.certificate

    asyncio.run(main())
