"""SVIDs at a peer: who is let in, and each single fault that keeps one out. The handshakes are OpenSSL's, and real."""

from __future__ import annotations

import contextlib
import ssl
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from ambient.identity import profile, svid

from . import make, tls
from .make import Leaf

AUTHORITY = make.an_authority()
GOOD = make.der(Leaf().sign(AUTHORITY))


def shown(leaf: Leaf) -> tls.Party:
    """An end that shows this leaf."""
    return tls.Party(profile.pem(leaf.sign(AUTHORITY)), profile.key_pem(leaf.key), AUTHORITY.bundle_pem)


def test_two_workloads_meet_and_know_each_other() -> None:
    web, db = make.an_identity("web"), make.an_identity("db", namespace="data")
    seen_by_web, seen_by_db = tls.meet(make.an_svid(web, authority=AUTHORITY), make.an_svid(db, authority=AUTHORITY))
    assert seen_by_web.identity == db
    assert seen_by_db.identity == web


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        pytest.param(Leaf(names=()), "no_spiffe_id", id="SAN-less"),
        pytest.param(Leaf(names=(x509.DNSName("web.shop"),)), "no_spiffe_id", id="a DNS name only"),
        pytest.param(
            Leaf(names=(make.uri(str(make.an_identity("web"))), make.uri(str(make.an_identity("root"))))),
            "several_uri_names",
            id="two SPIFFE names",
        ),
        pytest.param(
            Leaf(names=(make.uri(str(make.an_identity("web"))), make.uri("https://example.com"))),
            "several_uri_names",
            id="a SPIFFE name and another URI",
        ),
        pytest.param(Leaf(names=(make.uri("https://example.com"),)), "bad_spiffe_id", id="another URI"),
        pytest.param(Leaf(names=(make.uri("spiffe://cluster.local"),)), "bad_spiffe_id", id="no path"),
        pytest.param(
            Leaf(names=(make.uri("spiffe://other.org/ns/shop/sa/web"),)),
            "foreign_trust_domain",
            id="wrong trust domain",
        ),
        pytest.param(
            Leaf(names=(make.uri("spiffe://cluster.local.evil.org/ns/shop/sa/web"),)),
            "foreign_trust_domain",
            id="a trust domain that begins like ours",
        ),
        pytest.param(
            Leaf(ca=True, usage=("digital_signature", "key_cert_sign")), "ca_certificate", id="CA certificate as leaf"
        ),
        pytest.param(Leaf(usage=None), "wrong_key_usage", id="no key usage"),
        pytest.param(Leaf(usage=("key_agreement",)), "wrong_key_usage", id="a key for agreement only"),
        pytest.param(
            Leaf(usage=("digital_signature", "crl_sign")), "wrong_key_usage", id="a key for revocation lists too"
        ),
    ],
)
def test_a_chain_openssl_accepts_may_still_make_no_peer(leaf: Leaf, reason: str) -> None:
    server = make.an_svid(authority=AUTHORITY)
    _, seen = tls.handshake(shown(leaf), tls.Party.of(server))
    with pytest.raises(svid.UntrustedPeer) as refusal:
        svid.read_peer(seen, "cluster.local")
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("leaf", "reason", "alert"),
    [
        pytest.param(Leaf(begins=-2 * make.HOUR, ends=-make.HOUR), "expired", "expired", id="expired"),
        pytest.param(Leaf(begins=make.HOUR, ends=2 * make.HOUR), "not_yet_valid", "not yet valid", id="not yet valid"),
        pytest.param(
            Leaf(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), "wrong_key_usage", "purpose", id="for servers only"
        ),
        pytest.param(
            Leaf(purposes=(ExtendedKeyUsageOID.CODE_SIGNING,)), "wrong_key_usage", "purpose", id="for code signing"
        ),
    ],
)
def test_what_openssl_refuses_we_refuse_too(leaf: Leaf, reason: str, alert: str) -> None:
    with pytest.raises(ssl.SSLError, match=alert):
        tls.handshake(shown(leaf), tls.Party.of(make.an_svid(authority=AUTHORITY)))
    with pytest.raises(svid.UntrustedPeer) as refusal:
        svid.read_peer(make.der(leaf.sign(AUTHORITY)), "cluster.local")
    assert refusal.value.reason == reason


@pytest.mark.parametrize("as_client", [True, False], ids=["as client", "as server"])
def test_the_chain_of_a_namesake_ca_is_refused_by_openssl(as_client: bool) -> None:
    stranger = tls.Party.of(make.an_svid(authority=make.an_authority(), trusts=AUTHORITY.bundle_pem))
    ours = tls.Party.of(make.an_svid(authority=AUTHORITY))
    with pytest.raises(ssl.SSLError, match="unable to get local issuer"):
        tls.handshake(stranger, ours) if as_client else tls.handshake(ours, stranger)


def test_a_leaf_cannot_sign_further_leaves() -> None:
    """The one attack a stolen workload key would otherwise open: anybody's name."""
    thief = Leaf()
    stolen = thief.sign(AUTHORITY)
    forged_key = profile.new_key()
    forged = profile.leaf(
        forged_key.public_key(),
        make.an_identity("root"),
        signer=stolen,
        signer_key=thief.key,
        now=make.utc_now(),
        lifetime=timedelta(minutes=1),
    )
    party = tls.Party(profile.pem(forged) + profile.pem(stolen), profile.key_pem(forged_key), AUTHORITY.bundle_pem)
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        tls.handshake(party, tls.Party.of(make.an_svid(authority=AUTHORITY)))


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(Leaf(names=(*Leaf().names, x509.DNSName("web.shop"))), id="with a DNS name beside"),
        pytest.param(Leaf(ca=None), id="without basic constraints"),
        pytest.param(Leaf(purposes=None), id="for every purpose"),
        pytest.param(Leaf(usage=("digital_signature", "key_encipherment")), id="with istiod's key usage"),
    ],
)
def test_what_the_standard_allows_is_accepted(leaf: Leaf) -> None:
    _, seen = tls.handshake(shown(leaf), tls.Party.of(make.an_svid(authority=AUTHORITY)))
    assert svid.read_peer(seen, "cluster.local").identity == make.an_identity()


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # the library's, before we refuse it
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_damaged_certificate_is_refused_or_read_never_worse(position: int, change: int) -> None:
    damaged = bytearray(GOOD)
    damaged[position] ^= change
    with contextlib.suppress(svid.UntrustedPeer):  # the chain's signature is OpenSSL's to check, before we are asked
        assert svid.read_peer(bytes(damaged), "cluster.local").identity.trust_domain == "cluster.local"


@pytest.mark.parametrize(
    "der", [b"", b"\x30", GOOD[:-1], GOOD + b"\0", b"\xff" * 4096], ids=["0", "1", "cut", "+1", "ff"]
)
def test_bytes_that_are_no_certificate_are_refused(der: bytes) -> None:
    with pytest.raises(svid.UntrustedPeer) as refusal:
        svid.read_peer(der, "cluster.local")
    assert refusal.value.reason == "malformed_certificate"


def test_validity_begins_with_its_first_second_and_ends_before_its_last() -> None:
    leaf = Leaf().sign(AUTHORITY)
    der, second = make.der(leaf), timedelta(seconds=1)
    assert svid.read_peer(der, "cluster.local", now=leaf.not_valid_before_utc)
    assert svid.read_peer(der, "cluster.local", now=leaf.not_valid_after_utc - second)
    for moment in (leaf.not_valid_before_utc - second, leaf.not_valid_after_utc):
        with pytest.raises(svid.UntrustedPeer):
            svid.read_peer(der, "cluster.local", now=moment)


def test_a_key_shows_in_no_repr() -> None:
    own = make.an_svid(authority=AUTHORITY)
    assert "PRIVATE" not in repr(own)
    assert "PRIVATE" in own.key_pem.decode()


def test_a_request_proves_its_key_and_asks_for_one_name() -> None:
    key, pem = svid.request(make.an_identity())
    csr = x509.load_pem_x509_csr(pem)
    assert csr.is_signature_valid
    assert csr.public_key() == key.public_key()
    assert list(csr.subject) == []
    assert [list(each.value) for each in csr.extensions] == [[make.uri(str(make.an_identity()))]]


def test_every_request_has_a_key_of_its_own() -> None:
    assert svid.request(make.an_identity())[0].public_key() != svid.request(make.an_identity())[0].public_key()


class TestReceiving:
    """What an issuer may answer, and what is not accepted from it."""

    def receive(self, leaf: Leaf, *, chain: bytes | None = None, roots: bytes = AUTHORITY.bundle_pem) -> svid.Svid:
        chain = profile.pem(leaf.sign(AUTHORITY)) if chain is None else chain
        return svid.receive(make.an_identity(), leaf.key, chain, roots, now=make.utc_now())

    def test_the_right_certificate_becomes_an_svid_that_names_its_root(self) -> None:
        own = self.receive(Leaf())
        assert own.signed_by == AUTHORITY.signer.id
        assert serialization.load_pem_private_key(own.key_pem, None)

    def test_a_certificate_of_somebody_else_is_not_taken(self) -> None:
        with pytest.raises(svid.WrongCertificate, match="got a certificate of"):
            self.receive(Leaf(names=(make.uri(str(make.an_identity("db"))),)))

    def test_a_certificate_for_another_key_is_not_taken(self) -> None:
        with pytest.raises(svid.WrongCertificate, match="another key"):
            self.receive(Leaf(), chain=profile.pem(Leaf().sign(AUTHORITY)))

    def test_a_certificate_that_has_ended_is_not_taken(self) -> None:
        with pytest.raises(svid.WrongCertificate, match="of no use"):
            self.receive(Leaf(begins=-make.DAY, ends=-make.HOUR))

    def test_a_chain_to_none_of_the_roots_is_not_taken(self) -> None:
        with pytest.raises(svid.WrongCertificate, match="none of the roots"):
            self.receive(Leaf(), roots=make.an_authority().bundle_pem)

    def test_a_chain_out_of_order_is_not_taken(self) -> None:
        leaf = Leaf()
        chain = profile.pem(leaf.sign(AUTHORITY)) + profile.pem(make.an_authority().signer.certificate)
        with pytest.raises(svid.WrongCertificate, match="not in order"):
            self.receive(leaf, chain=chain)

    @pytest.mark.parametrize(("chain", "roots"), [(b"", AUTHORITY.bundle_pem), (None, b""), (b"x", b"x")])
    def test_something_else_than_pem_is_not_taken(self, chain: bytes | None, roots: bytes) -> None:
        with pytest.raises(svid.WrongCertificate, match="cannot be read"):
            self.receive(Leaf(), chain=chain, roots=roots)
