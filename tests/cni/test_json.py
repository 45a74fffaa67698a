"""The scanner says of every text what Python's json module says, and finds the members it finds, where they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cni.native import Scanner

VALUES = {
    "a result": ('{"ips":[{"address":"10.0.0.1/24"}],"dns":{}}',) * 2,
    "blanks around": (" \t\r\n{ } \n", "{ }"),
    "a string": (r'"a \"quoted\" ÄA \\"',) * 2,
    "a number": ("-12.50e+3",) * 2,
    "null": ("null",) * 2,
    "an empty list": ("[ ]",) * 2,
}
WRONG = [
    "",
    " ",
    "[]",
    '"a"',
    "{",
    "}",
    "{}}",
    "{} {}",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{"a":1 "b":2}',
    "{a:1}",
    "{'a':1}",
    '{"a":01}',
    '{"a":1.}',
    '{"a":.5}',
    '{"a":+1}',
    '{"a":-}',
    '{"a":1e}',
    '{"a":tru}',
    '{"a":nullx}',
    '{"a":[1,]}',
    '{"a":[1}',
    '{"a":"b}',
    '{"a":"\x01"}',
    r'{"a":"\x"}',
    r'{"a":"\u12"}',
    r'{"a":"\u12g4"}',
    '{"a":"\\',
    '{"a":1}\0',
    '{"a":"\0"}',
]


@pytest.mark.parametrize(("written", "value"), VALUES.values(), ids=VALUES)
def test_a_value_is_found_byte_for_byte(scanner: Scanner, written: str, value: str) -> None:
    document = f' {{"x":{{"prevResult":1}},"prevResult":{written},"y":[]}} '.encode()
    assert scanner.member(document, "prevResult") == (True, value.encode())


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_object_is_none(scanner: Scanner, text: str) -> None:
    assert scanner.member(text.encode(), "a") == (False, None)


@pytest.mark.parametrize("cut", range(40))
def test_a_document_that_breaks_off_is_none(scanner: Scanner, cut: int) -> None:
    document = rb'{"a":[1,{"b":"\u0041c"},true,null],"c":-1.5e3}'
    assert scanner.member(document[:cut], "a") == (False, None)


def test_of_two_members_the_last_counts_as_for_runtimes(scanner: Scanner) -> None:
    assert scanner.member(b'{"a":1,"a":2}', "a") == (True, b"2")


def test_a_name_is_that_name_whole(scanner: Scanner) -> None:
    document = b'{"prev":1,"prevResultX":2,"":3}'
    assert [scanner.member(document, name)[1] for name in ("prevResult", "prev", "")] == [None, b"1", b"3"]


@pytest.mark.parametrize(("depth", "good"), [(60, True), (64, False), (100_000, False)])
def test_depth_is_bounded(scanner: Scanner, depth: int, good: bool) -> None:
    assert scanner.member(b'{"a":' + b"[" * depth + b"]" * depth + b"}", "a")[0] == good


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (b'"/run/ambient"', b"/run/ambient"),
        (b'""', b""),
        (rb'"a\/b"', b""),
        (b"12", b""),
        (b"null", b""),
        (b'["a"]', b""),
    ],
)
def test_a_plain_string_is_what_is_between_its_quotes(scanner: Scanner, value: bytes, plain: bytes) -> None:
    assert scanner.plain(value) == plain


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is Python's, not JSON's")


def reference(text: bytes) -> tuple[bool, Any]:
    """Whether Python takes it for an object, and its member "a"."""
    try:
        body = json.loads(text.decode(), parse_constant=no_constant)
    except ValueError:
        return False, None
    return (True, body.get("a")) if isinstance(body, dict) else (False, None)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "aa", ""]) | st.text(), TREES, max_size=5)
NEAR = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@NEAR
@given(body=OBJECTS, pretty=st.booleans(), plain=st.booleans())
def test_it_agrees_on_documents(scanner: Scanner, body: dict[str, Any], pretty: bool, plain: bool) -> None:
    text = json.dumps(body, indent=2 if pretty else None, ensure_ascii=plain)
    good, value = scanner.member(text.encode(errors="surrogatepass"), "a")
    assert good
    assert (json.loads(value) if value is not None else None) == body.get("a")


@NEAR
@given(body=OBJECTS, data=st.data())
def test_it_agrees_on_documents_with_a_mistake(scanner: Scanner, body: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(json.dumps(body).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b'"', b"}", b"]", b",", b"0", b"\\"])
    )
    expected, member = reference(bytes(text))
    good, value = scanner.member(bytes(text), "a")
    assert good == expected
    if value is not None:
        assert json.loads(value) == member
