"""The certificates' own shape, as other implementations will look at it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from ambient.identity import profile

from . import make, virtual

NOW = virtual.EPOCH


def a_leaf(
    lifetime: timedelta = make.HOUR, *, age: timedelta = timedelta(0)
) -> tuple[x509.Certificate, x509.Certificate]:
    """A leaf signed when its root had the given age, and the root."""
    key, root = profile.root("cluster.local", NOW)
    leaf = profile.leaf(
        profile.new_key().public_key(),
        make.an_identity(),
        signer=root,
        signer_key=key,
        now=NOW + age,
        lifetime=lifetime,
    )
    return leaf, root


def test_the_one_name_is_critical_because_the_subject_is_empty() -> None:
    leaf, _ = a_leaf()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(leaf.subject) == []
    assert names.critical
    assert list(names.value) == [make.uri("spiffe://cluster.local/ns/shop/sa/web")]


def test_a_leaf_may_sign_a_handshake_at_either_end_and_no_certificate() -> None:
    leaf, _ = a_leaf()
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert constraints.critical
    assert not constraints.value.ca
    assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


def test_a_root_signs_leaves_only_and_no_handshake() -> None:
    _, root = profile.root("cluster.local", NOW)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.key_cert_sign
    assert not usage.digital_signature


def test_two_roots_of_one_trust_domain_have_different_names() -> None:
    assert profile.root("cluster.local", NOW)[1].subject != profile.root("cluster.local", NOW)[1].subject


def test_keys_are_p256() -> None:
    leaf, root = a_leaf()
    for certificate in (leaf, root):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"


def test_a_leaf_begins_a_little_earlier_for_peers_whose_clock_is_behind() -> None:
    leaf, _ = a_leaf(age=make.DAY)
    assert leaf.not_valid_before_utc == NOW + make.DAY - profile.CLOCK_SKEW
    assert leaf.not_valid_after_utc == NOW + make.DAY + make.HOUR


def test_a_leaf_does_not_begin_before_its_root() -> None:
    leaf, root = a_leaf(age=-profile.CLOCK_SKEW)
    assert leaf.not_valid_before_utc == root.not_valid_before_utc


def test_a_leaf_ends_with_its_root_at_the_latest() -> None:
    leaf, root = a_leaf(make.DAY, age=profile.ROOT_LIFETIME - make.HOUR)
    assert leaf.not_valid_after_utc == root.not_valid_after_utc


def test_a_root_about_to_end_signs_no_more_and_says_to_rotate() -> None:
    with pytest.raises(profile.LifetimeRefused, match="rotate the root"):
        a_leaf(age=profile.ROOT_LIFETIME - timedelta(seconds=2))


@pytest.mark.parametrize("lifetime", [profile.MIN_LIFETIME, profile.DEFAULT_LIFETIME, profile.MAX_LIFETIME], ids=str)
def test_lifetimes_within_the_bounds_are_given_to_the_second(lifetime: timedelta) -> None:
    assert a_leaf(lifetime)[0].not_valid_after_utc == NOW + lifetime


@pytest.mark.parametrize(
    "lifetime",
    [
        pytest.param(timedelta(0), id="none"),
        pytest.param(-make.HOUR, id="negative"),
        pytest.param(profile.MIN_LIFETIME - timedelta(seconds=1), id="too short"),
        pytest.param(profile.MAX_LIFETIME + timedelta(seconds=1), id="too long"),
    ],
)
def test_other_lifetimes_are_refused_not_bent(lifetime: timedelta) -> None:
    with pytest.raises(profile.LifetimeRefused, match="was asked for"):
        a_leaf(lifetime)
