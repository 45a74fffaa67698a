"""The embedded CA: founded once however many start it, and it signs for nobody's name but the one asked for."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ambient.identity import ca, ca_dir, profile, roots, svid
from ambient.identity.ca import EmbeddedCA
from ambient.model.mesh import Identity

from . import make

OPEN = (
    "import sys; from pathlib import Path; from ambient.identity.ca import EmbeddedCA; "
    "sys.stdin.read(); print(EmbeddedCA.open(Path(sys.argv[1]), 'cluster.local').status()[0]['root'])"
)


def issue(
    opened: EmbeddedCA, identity: Identity, csr: bytes | None = None, lifetime: timedelta = make.HOUR
) -> ca.Issued:
    return asyncio.run(opened.issue(svid.request(identity)[1] if csr is None else csr, identity, lifetime))


@pytest.fixture
def opened(tmp_path: Path) -> EmbeddedCA:
    return EmbeddedCA.open(tmp_path / "ca", "cluster.local")


def test_a_request_becomes_a_certificate_by_the_root_in_the_bundle(opened: EmbeddedCA) -> None:
    identity = make.an_identity()
    key, csr = svid.request(identity)
    issued = issue(opened, identity, csr)
    own = svid.receive(identity, key, issued.chain_pem, issued.roots_pem, now=make.utc_now())
    assert own.signed_by == opened.status()[0]["root"]


def test_opening_again_finds_the_same_root(opened: EmbeddedCA, tmp_path: Path) -> None:
    assert EmbeddedCA.open(tmp_path / "ca", "cluster.local").status() == opened.status()


def test_processes_that_start_at_once_found_one_ca(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(tmp_path / "ca")]
    with contextlib.ExitStack() as stack:
        starters = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(4)
        ]
        for each in starters:  # all have imported what they need and race from here
            assert each.stdin is not None
            each.stdin.close()
        found = {each.stdout.read() for each in starters if each.stdout is not None}
    assert len(found) == 1
    assert [each.returncode for each in starters] == [0] * 4


def test_another_trust_domain_does_not_get_this_ca(opened: EmbeddedCA, tmp_path: Path) -> None:
    assert opened.status()
    with pytest.raises(ca_dir.CaUnusable, match=r"of the trust domain 'cluster.local', not 'other.org'"):
        EmbeddedCA.open(tmp_path / "ca", "other.org")


def test_who_only_wants_to_look_or_rotate_founds_nothing(opened: EmbeddedCA, tmp_path: Path) -> None:
    assert EmbeddedCA.open(tmp_path / "ca", "cluster.local", create=False).status() == opened.status()
    with pytest.raises(ca_dir.CaUnusable, match="never was"):
        EmbeddedCA.open(tmp_path / "typo", "cluster.local", create=False)
    assert not (tmp_path / "typo").exists()


def test_a_name_that_is_no_trust_domain_founds_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no trust domain"):
        EmbeddedCA.open(tmp_path / "ca", "Not/One")
    assert not (tmp_path / "ca").exists()


def _csr(*names: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, ca_too: bool = False) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([make.uri(name) for name in names]), critical=True)
    if ca_too:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key or profile.new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _broken_signature() -> bytes:
    der = bytearray(x509.load_pem_x509_csr(_csr(WEB)).public_bytes(serialization.Encoding.DER))
    at = der.rindex(make.uri(WEB).value.encode())
    der[at + len(WEB) - 1] ^= 1  # another account, by the signature of the first
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


WEB = str(make.an_identity())


@pytest.mark.parametrize(
    ("csr", "says"),
    [
        pytest.param(lambda: b"", "cannot|no certificate", id="nothing"),
        pytest.param(lambda: _csr(str(make.an_identity("db"))), "is for .*/sa/db", id="somebody else's name"),
        pytest.param(lambda: _csr(WEB, str(make.an_identity("db"))), "one URI name", id="two names"),
        pytest.param(lambda: _csr(WEB, ca_too=True), "one URI name", id="asks to be a CA"),
        pytest.param(lambda: _csr(WEB, key=ec.generate_private_key(ec.SECP384R1())), "P-256", id="another curve"),
        pytest.param(lambda: _csr(WEB, key=rsa.generate_private_key(65537, 2048)), "P-256", id="RSA"),
        pytest.param(_broken_signature, "its own key", id="not signed by its key"),
    ],
)
def test_other_requests_are_refused(opened: EmbeddedCA, csr: Callable[[], bytes], says: str) -> None:
    with pytest.raises(ca.IssuingFailed, match=says):
        issue(opened, make.an_identity(), csr())


def test_another_trust_domains_workload_is_refused(opened: EmbeddedCA) -> None:
    with pytest.raises(ca.IssuingFailed, match="trust domain"):
        issue(opened, make.an_identity(domain="other.org"))


def test_a_lifetime_out_of_bounds_is_refused(opened: EmbeddedCA) -> None:
    with pytest.raises(ca.IssuingFailed, match="gives 0:00:05 to 7 days"):
        issue(opened, make.an_identity(), lifetime=timedelta(days=365))


def test_a_ca_whose_secret_was_opened_to_others_signs_no_more(opened: EmbeddedCA, tmp_path: Path) -> None:
    (tmp_path / "ca" / ca_dir.STATE).chmod(0o644)
    with pytest.raises(ca.IssuingFailed, match="mode 0644"):
        issue(opened, make.an_identity())


def test_a_ca_that_was_removed_signs_no_more_and_is_not_founded_behind_its_back(
    opened: EmbeddedCA, tmp_path: Path
) -> None:
    (tmp_path / "ca" / ca_dir.STATE).unlink()
    with pytest.raises(ca.IssuingFailed, match="is gone"):
        issue(opened, make.an_identity())
    with pytest.raises(ca_dir.CaUnusable, match="is gone"):
        opened.add_root()


def test_a_bundle_file_lost_or_changed_is_made_right_at_the_next_opening(opened: EmbeddedCA, tmp_path: Path) -> None:
    path = tmp_path / "ca" / ca_dir.BUNDLE
    right = path.read_bytes()
    path.write_bytes(b"something else")
    assert EmbeddedCA.open(tmp_path / "ca", "cluster.local").status() == opened.status()
    assert path.read_bytes() == right


def test_a_rotation_step_by_one_process_counts_for_all(opened: EmbeddedCA, tmp_path: Path) -> None:
    other = EmbeddedCA.open(tmp_path / "ca", "cluster.local")
    new = other.add_root()
    assert [row["role"] for row in opened.status()] == ["signs", "will sign"]
    assert other.switch_signer(settle=timedelta(0)) == new
    leaf = x509.load_pem_x509_certificate(issue(opened, make.an_identity()).chain_pem)
    assert opened.status()[0]["root"] == new
    assert [row["role"] for row in opened.status()] == ["signs", "to be dropped"]
    assert leaf.issuer.rfc4514_string().startswith("CN=Ambient root")
    assert other.drop_old_root(longest=timedelta(0)) == new
    assert [row["role"] for row in opened.status()] == ["signs"]


def test_a_refused_step_changes_nothing(opened: EmbeddedCA, tmp_path: Path) -> None:
    opened.add_root()
    before = (tmp_path / "ca" / ca_dir.STATE).read_bytes()
    with pytest.raises(roots.RotationRefused):
        opened.switch_signer()
    assert (tmp_path / "ca" / ca_dir.STATE).read_bytes() == before


def test_a_watcher_hears_of_every_change_of_the_bundle(tmp_path: Path) -> None:
    async def main() -> None:
        watched = EmbeddedCA.open(tmp_path / "ca", "cluster.local")
        async with contextlib.aclosing(watched.watch_roots()) as bundles:
            assert (await anext(bundles)).count(b"BEGIN") == 1
            EmbeddedCA.open(tmp_path / "ca", "cluster.local").add_root()
            assert (await asyncio.wait_for(anext(bundles), 5)).count(b"BEGIN") == 2

    asyncio.run(main())


def test_a_watcher_of_a_ca_that_went_away_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        watched = EmbeddedCA.open(tmp_path / "ca", "cluster.local")
        async with contextlib.aclosing(watched.watch_roots()) as bundles:
            await anext(bundles)
            (tmp_path / "ca" / ca_dir.STATE).unlink()
            with pytest.raises(ca.IssuingFailed, match="is gone"):
                await asyncio.wait_for(anext(bundles), 5)

    asyncio.run(main())
