"""The steps of a root's replacement, and the order and waiting they insist on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ambient.identity import profile, roots

from . import make, virtual

NOW = virtual.EPOCH
SETTLED = NOW + roots.SETTLE
OUTLIVED = SETTLED + profile.MAX_LIFETIME


def test_a_new_ca_trusts_the_root_it_signs_with() -> None:
    authority = roots.found("cluster.local", NOW)
    assert authority.trusted == (authority.signer,)
    assert authority.bundle_pem == profile.pem(authority.signer.certificate)


def test_a_whole_rotation_replaces_the_root_and_its_key() -> None:
    first = roots.found("cluster.local", NOW)
    added = roots.add_root(first, NOW)
    switched = roots.switch_signer(added, SETTLED)
    dropped = roots.drop_old(switched, OUTLIVED)
    assert [len(each.trusted) for each in (first, added, switched, dropped)] == [1, 2, 2, 1]
    assert [each.signer.id for each in (first, added)] == [first.signer.id] * 2
    assert [each.signer.id for each in (switched, dropped)] == [added.trusted[1].id] * 2
    assert roots.add_root(dropped, OUTLIVED).coming is not None  # the next rotation may begin


def test_the_old_root_loses_its_key_when_it_stops_signing() -> None:
    switched = roots.switch_signer(roots.add_root(roots.found("cluster.local", NOW), NOW), SETTLED)
    assert switched.old is not None
    assert switched.old.key is None


def test_the_new_root_does_not_sign_before_every_agent_had_time_to_trust_it() -> None:
    added = roots.add_root(roots.found("cluster.local", NOW), NOW)
    with pytest.raises(roots.RotationRefused, match="switch after 2026-01-01T00:01:00Z"):
        roots.switch_signer(added, SETTLED - timedelta(seconds=1))


def test_the_old_root_is_trusted_while_a_certificate_of_it_may_live() -> None:
    switched = roots.switch_signer(roots.add_root(roots.found("cluster.local", NOW), NOW), SETTLED)
    with pytest.raises(roots.RotationRefused, match="drop it after"):
        roots.drop_old(switched, OUTLIVED - timedelta(seconds=1))
    assert roots.drop_old(switched, SETTLED + make.DAY, longest=make.DAY).old is None


def test_a_compromised_root_may_be_dropped_at_once() -> None:
    switched = roots.switch_signer(roots.add_root(roots.found("cluster.local", NOW), NOW), NOW, settle=timedelta(0))
    assert roots.drop_old(switched, NOW, longest=timedelta(0)).old is None


def test_steps_out_of_order_are_refused_with_the_right_one_named() -> None:
    first = roots.found("cluster.local", NOW)
    added = roots.add_root(first, NOW)
    switched = roots.switch_signer(added, SETTLED)
    with pytest.raises(roots.RotationRefused, match="add one first"):
        roots.switch_signer(first, SETTLED)
    with pytest.raises(roots.RotationRefused, match="no old root"):
        roots.drop_old(added, OUTLIVED)
    with pytest.raises(roots.RotationRefused, match="switch the signer"):
        roots.add_root(added, SETTLED)
    with pytest.raises(roots.RotationRefused, match="drop it first"):
        roots.add_root(switched, SETTLED)
    with pytest.raises(roots.RotationRefused, match="add one first"):
        roots.switch_signer(switched, OUTLIVED)


def test_no_key_shows_in_a_repr() -> None:
    assert "PrivateKey" not in repr(roots.found("cluster.local", NOW))
