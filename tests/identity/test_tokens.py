"""Tokens looked at: what they say, and that nothing in them can hurt."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.identity import tokens


def a_token(**changes: Any) -> str:
    """Of the agent's pod on node-1, unless told otherwise; a claim that is None is left out."""
    claims = {
        "aud": ["ambient-control"],
        "sub": "system:serviceaccount:ambient-system:ambient-agent",
        "exp": 1_767_229_200,  # an hour after the virtual epoch
        "kubernetes.io": {"namespace": "ambient-system", "pod": {"name": "agent-1", "uid": "uid-agent-1"}},
    } | changes
    payload = json.dumps({key: value for key, value in claims.items() if value is not None}).encode()
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c2ln"


def test_a_token_says_whose_it_is_for_whom_and_how_long() -> None:
    assert tokens.peek(a_token()) == tokens.Claims(
        "system:serviceaccount:ambient-system:ambient-agent",
        ("ambient-control",),
        1_767_229_200.0,
        pod="agent-1",
        pod_uid="uid-agent-1",
    )


def test_one_audience_may_stand_alone() -> None:
    assert tokens.peek(a_token(aud="ambient-control")).audiences == ("ambient-control",)


def test_a_token_of_no_pod_says_so() -> None:
    for bound in ({"namespace": "ambient-system"}, {"pod": "agent-1"}, {"pod": {"name": None}}, None):
        found = tokens.peek(a_token(**{"kubernetes.io": bound}))
        assert (found.pod, found.pod_uid, found.node) == ("", "", "")


def test_a_token_may_say_which_node_runs_its_pod() -> None:
    assert tokens.peek(a_token(**{"kubernetes.io": {"node": {"name": "node-1"}}})).node == "node-1"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c.d",
        "e30.e30.e30",
        "e30.bm8.e30",
        "e30.\xff.e30",
        "x" * 20_000,
        a_token(exp="soon"),
        a_token(exp=float("nan")),
        a_token(exp=10**400),
        a_token(exp=1e300),
        a_token(exp=-1),
        a_token(aud=7),
    ],
    ids=[
        "empty",
        "two parts",
        "four parts",
        "no claims",
        "no JSON",
        "no base64",
        "long",
        "no time",
        "NaN",
        "no float",
        "no year",
        "before the epoch",
        "no audience",
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)token"):
        tokens.peek(token)


@given(st.one_of(st.text(), st.binary().map(lambda raw: f"e30.{base64.urlsafe_b64encode(raw).decode()}.x")))
def test_nothing_but_a_value_error_comes_of_garbage(token: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        tokens.peek(token)
