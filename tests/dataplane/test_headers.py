"""CONNECT's headers, well-formed and hostile."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.dataplane import headers
from ambient.model.mesh import Locality, Workload, address


def test_a_header_block_becomes_a_mapping_and_the_first_of_a_repeated_name_stays() -> None:
    block = b":method\0CONNECT\0:authority\x0010.0.0.1:80\0baggage\0a=b\0baggage\0c=d\0"
    assert headers.parse(block) == {":method": "CONNECT", ":authority": "10.0.0.1:80", "baggage": "a=b"}


@pytest.mark.parametrize("block", [b"lonely\0", b"name\0value", b"x"], ids=["odd", "unterminated", "no NUL"])
def test_a_broken_header_block_is_refused(block: bytes) -> None:
    with pytest.raises(headers.BadHeader):
        headers.parse(block)


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("[fd00::1]:65535", "fd00::1", 65535),
        ("[::ffff:10.0.0.1]:8080", "10.0.0.1", 8080),
    ],
    ids=["v4", "v6", "mapped is v4"],
)
def test_an_authority_names_address_and_port(text: str, ip: str, port: int) -> None:
    assert headers.authority(text) == (address(ip), port)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.1:-1",
            "10.0.0.1:8_0",
            "10.0.0.1:٣",
        ),
        *("fd00::1:80", "[10.0.0.1]:80", "[fd00::1]", "web.shop:80", "10.0.0.1:80:80", "10.0.0.1:80\0", " 10.0.0.1:80"),
    ],
)
def test_what_is_no_ip_and_port_is_a_bad_header(text: str) -> None:
    with pytest.raises(headers.BadHeader):
        headers.authority(text)


@given(st.text(max_size=60))
def test_any_text_is_an_authority_or_a_bad_header(text: str) -> None:
    with contextlib.suppress(headers.BadHeader):
        headers.authority(text)


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ('for="10.1.0.1:4242";host=web.shop.svc.cluster.local', "web.shop.svc.cluster.local"),
        ('for="[fd00::1]:1";Host="web"', "web"),
        ("host=a;for=10.1.0.1, host=b", "a"),
        ('for="10.1.0.1:4242"', ""),
        ("host=", ""),
        ('host="', ""),
        ("", ""),
    ],
    ids=["as we write it", "quoted", "the first", "none", "empty", "a lonely quote", "no header"],
)
def test_a_forwarded_header_says_which_host_was_asked_for(value: str, host: str) -> None:
    assert headers.forwarded_host(value) == host


def test_baggage_names_the_client_and_nothing_that_is_unknown() -> None:
    client = Workload(namespace="shop", name="web-1", uid="u", node="n", owner="we,b", locality=Locality(zone="z1"))
    assert headers.baggage(client) == (
        "k8s.namespace.name=shop,k8s.pod.name=web-1,service.name=we%2Cb,cloud.availability_zone=z1"
    )
