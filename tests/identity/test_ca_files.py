"""A CA in files of cert-manager's: what it signs is good for peers, and what is wrong with it is named."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
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


def a_ca(
    name: str,
    parent: Ca | None = None,
    *,
    key: Key | None = None,
    is_ca: bool = True,
    usage: bool = True,
    below: int | None = None,
    begins: timedelta = -make.HOUR,
    ends: timedelta = 30 * make.DAY,
) -> Ca:
    """Named, and with a key identifier of its own making, as other people's CAs have. below: CAs it may have there."""
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
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=below), critical=True)
        .add_extension(x509.KeyUsage(**usages), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(name.encode()), critical=False)
    )
    return Ca(key, builder.sign(parent.key if parent else key, hashes.SHA256()))


ROOT = a_ca("root")
MIDDLE = a_ca("middle", ROOT)
LOW = a_ca("low", MIDDLE, key=RSA)
OTHER = a_ca("other")
TIGHT = a_ca("tight", below=0)
LEAF = a_ca("leaf", ROOT, is_ca=False)


def write(folder: Path, *, chain: tuple[Ca, ...], roots: tuple[Ca, ...], key: Key | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
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
    signer = ca_files.load(write(tmp_path, chain=chain, roots=roots), make.utc_now())
    web, db = issue(signer, "web"), issue(signer, "db")
    tls.meet(web, db)  # OpenSSL's verdict
    assert len(x509.load_pem_x509_certificates(web.chain_pem)) == length


def test_a_root_of_ours_taken_out_of_its_secret_signs_from_files_while_another_is_trusted_beside_it(
    tmp_path: Path,
) -> None:
    """How one leaves a CA of ours for another: both are trusted before the other one signs."""
    ours = make.an_authority()
    (tmp_path / "tls.crt").write_bytes(profile.pem(ours.signer.certificate))
    (tmp_path / "tls.key").write_bytes(profile.key_pem(ours.signing_key))
    (tmp_path / "ca.crt").write_bytes(ours.bundle_pem + ROOT.pem)
    first = issue(ca_files.load(tmp_path, make.utc_now()), "web")
    assert first.signed_by == ours.signer.id
    write(tmp_path, chain=(MIDDLE,), roots=(Ca(ours.signing_key, ours.signer.certificate), ROOT))
    tls.meet(first, issue(ca_files.load(tmp_path, make.utc_now()), "db"))


def test_it_gives_servers_a_chain_too(tmp_path: Path) -> None:
    signer = ca_files.load(write(tmp_path, chain=(LOW, MIDDLE), roots=(ROOT,)), make.utc_now())
    own = signer.server(["a.b.svc"], make.HOUR, datetime.now(UTC))
    chain = x509.load_pem_x509_certificates(own.chain_pem)
    assert [profile.issued_by(child, parent) for child, parent in itertools.pairwise(chain)] == [True, True]


def test_no_certificate_outlives_the_intermediate(tmp_path: Path) -> None:
    signer = ca_files.load(write(tmp_path, chain=(MIDDLE,), roots=(ROOT,)), make.utc_now())
    late = signer.certificate.not_valid_after_utc - timedelta(minutes=5)
    own = signer.server(["a.b.svc"], make.HOUR, late)
    assert own.not_after == signer.certificate.not_valid_after_utc


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _rewrite(*chain: Ca, roots: tuple[Ca, ...] = (ROOT,)) -> Callable[[Path], object]:
    return lambda folder: write(folder, chain=chain, roots=roots)


def _twice(folder: Path) -> None:
    """A root that has one extension twice."""
    der = make.der(ROOT.certificate)
    key_identifier, constraints = bytes.fromhex("0603551d0e"), bytes.fromhex("0603551d13")
    assert der.count(key_identifier) == 1
    both = x509.load_der_x509_certificate(der.replace(key_identifier, constraints))
    write(folder, chain=(Ca(ROOT.key, both),), roots=(Ca(ROOT.key, both),))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no chain": (_remove("tls.crt"), r"cannot read certificates from .*tls\.crt"),
    "no key": (_remove("tls.key"), r"cannot read a key from .*tls\.key"),
    "no roots": (_put("ca.crt", b""), r"cannot read certificates from .*ca\.crt"),
    "a bad key": (_put("tls.key", b"no key"), "cannot read a key"),
    "a foreign key": (_put("tls.key", profile.key_pem(OTHER.key)), "is not the key of"),
    "another kind of key": (
        _put("tls.key", profile.key_pem(ed25519.Ed25519PrivateKey.generate())),  # type: ignore[arg-type]
        "neither ECDSA nor RSA",
    ),
    "foreign roots": (_put("ca.crt", OTHER.pem), r"lead to 'CN=root', which is not in .*ca\.crt"),
    "an intermediate for a root": (_rewrite(LOW, roots=(MIDDLE,)), "'CN=middle' in .*ca.crt is no root, 'CN=root' has"),
    "itself for a root": (_rewrite(MIDDLE, roots=(MIDDLE,)), "'CN=middle' in .*ca.crt is no root"),
    "a leaf": (_rewrite(LEAF), "'CN=leaf' in .* is no CA's certificate: .* needs isCA: true"),
    "below a leaf": (_rewrite(a_ca("x", LEAF), LEAF), "'CN=leaf' in .* is no CA's certificate"),
    "no usage": (_rewrite(a_ca("leaf", ROOT, usage=False)), "is no CA's certificate"),
    "disorder": (_rewrite(LOW, OTHER), "not in order"),
    "a root that signs itself only": (_rewrite(a_ca("x", TIGHT), roots=(TIGHT,)), "'CN=tight' .* 0 CAs .* there are 1"),
    "too deep": (
        _rewrite(a_ca("y", a := a_ca("x", b := a_ca("w", ROOT, below=0))), a, b),
        "'CN=w' in .* allows a path of 0 CAs",
    ),
    "malformed": (_twice, r"what is in .*tls\.crt cannot be read as certificates: .*[Dd]uplicate"),
    "ended": (_rewrite(a_ca("x", ROOT, ends=timedelta(seconds=-1))), r"'CN=x' in .* ended at \d.*Z: renew it"),
    "not begun": (_rewrite(a_ca("x", ROOT, begins=make.HOUR)), r"'CN=x' in .* begins at \d.*Z: is our clock right"),
    "a root that ended": (
        _rewrite(a_ca("x", a := a_ca("r", ends=timedelta(seconds=-1))), roots=(a,)),
        "'CN=r' in .* ended at",
    ),
}


@pytest.mark.parametrize(("damage", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(tmp_path: Path, damage: Callable[[Path], object], says: str) -> None:
    write(tmp_path, chain=(MIDDLE,), roots=(ROOT,))
    damage(tmp_path)
    with pytest.raises(CaUnusable, match=says):
        ca_files.load(tmp_path, make.utc_now())


@pytest.mark.parametrize(
    ("chain", "roots"),
    [((a_ca("x", TIGHT),), (TIGHT,)), ((LOW,), (MIDDLE,))],
    ids=["below a root that allows none", "below an intermediate alone"],
)
def test_peers_would_refuse_what_is_refused_here(chain: tuple[Ca, ...], roots: tuple[Ca, ...]) -> None:
    signer = Signer(chain[0].certificate, chain[0].key, roots[0].pem, above_pem=chain[0].pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        tls.meet(issue(signer, "web"), issue(signer, "db"))


def test_what_was_good_is_told_of_when_it_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca_files, "LOOK_AGAIN_MS", 50)
    late = timedelta(0)

    async def main() -> None:
        nonlocal late
        states = ca_files.watch(write(tmp_path, chain=(MIDDLE,), roots=(ROOT,)), now=lambda: datetime.now(UTC) + late)
        async with contextlib.aclosing(states):
            assert isinstance(await anext(states), Signer)
            late = 31 * make.DAY
            assert "ended at" in str(await asyncio.wait_for(anext(states), 5))

    asyncio.run(main())


def test_renewed_files_are_noticed_and_half_renewed_ones_are_told_apart(tmp_path: Path) -> None:
    async def main() -> None:
        async with contextlib.aclosing(ca_files.watch(write(tmp_path, chain=(MIDDLE,), roots=(ROOT,)))) as states:
            assert isinstance(first := await anext(states), Signer)
            assert first.certificate == MIDDLE.certificate
            coming = asyncio.ensure_future(anext(states))
            await asyncio.sleep(0.2)  # the folder is being watched
            (tmp_path / "tls.key").write_bytes(profile.key_pem(OTHER.key))
            assert isinstance(await asyncio.wait_for(coming, 30), CaUnusable)
            coming = asyncio.ensure_future(anext(states))
            await asyncio.sleep(0)
            write(tmp_path, chain=(OTHER,), roots=(ROOT, OTHER))
            assert isinstance(second := await asyncio.wait_for(coming, 30), Signer)
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
            assert isinstance(found := await asyncio.wait_for(coming, 30), Signer)
            assert found.certificate == OTHER.certificate

    asyncio.run(main())
