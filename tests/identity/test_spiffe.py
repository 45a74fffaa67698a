"""SPIFFE IDs: what is one of ours, and the look-alikes that are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.identity import spiffe
from ambient.model.mesh import Identity

from . import make

LONG = "a" * 2048


def test_a_spiffe_id_survives_the_way_to_text_and_back() -> None:
    assert spiffe.parse(str(make.an_identity())) == make.an_identity()


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("", id="nothing"),
        pytest.param("https://cluster.local/ns/shop/sa/web", id="another scheme"),
        pytest.param("SPIFFE://cluster.local/ns/shop/sa/web", id="scheme in capitals"),
        pytest.param("spiffe://Cluster.Local/ns/shop/sa/web", id="trust domain in capitals"),
        pytest.param("spiffe://cluster.local:80/ns/shop/sa/web", id="a port"),
        pytest.param("spiffe://me@cluster.local/ns/shop/sa/web", id="user info"),
        pytest.param("spiffe:///ns/shop/sa/web", id="no trust domain"),
        pytest.param("spiffe://cluster.local", id="a trust domain's own name"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/", id="empty account"),
        pytest.param("spiffe://cluster.local/ns//sa/web", id="empty namespace"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/web/", id="trailing slash"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/web/more", id="a segment too many"),
        pytest.param("spiffe://cluster.local/ns/../sa/web", id="dots"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/%77eb", id="percent encoding"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/web?x=1", id="a query"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/web#x", id="a fragment"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/web\n", id="a line end"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/web\0", id="a null byte"),
        pytest.param("spiffe://cluster.local/ns/shop/sa/wéb", id="not ASCII"),
        pytest.param(f"spiffe://cluster.local/ns/shop/sa/{LONG}", id="longer than 2048 bytes"),
        pytest.param(f"spiffe://{'a' * 256}/ns/shop/sa/web", id="trust domain longer than 255 bytes"),
    ],
)
def test_what_only_looks_like_a_spiffe_id_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        spiffe.parse(uri)


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param(Identity("cluster.local", "a/sa/b", "web"), id="a slash in the namespace"),
        pytest.param(Identity("cluster.local", "shop", "web/../x"), id="a path in the account"),
        pytest.param(Identity("", "shop", "web"), id="no trust domain"),
        pytest.param(Identity("cluster.local", "shop", LONG), id="too long"),
    ],
)
def test_an_identity_from_a_manifest_cannot_smuggle_another(identity: Identity) -> None:
    with pytest.raises(ValueError, match=r"."):
        spiffe.checked(identity)


@given(st.text(max_size=80))
def test_any_text_is_read_as_itself_or_refused(text: str) -> None:
    try:
        parsed = spiffe.parse("spiffe://" + text)
    except ValueError:
        return
    assert str(parsed) == "spiffe://" + text
