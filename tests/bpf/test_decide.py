"""The truth tables of decide.h, compiled for this machine."""

from __future__ import annotations

import ctypes
import socket
from typing import Any

import pytest

from ambient.capture import abi

from . import native

POD = native.pod("10.0.0.2", "fd00::2", ports=(41001, 41002, 41003))
LEFT = native.pod("10.0.0.2", "fd00::2", capture=False, ports=(41001, 41002, 41003))
GONE = {"pod": None, "enrolled": 1}
IPPROTO_MPTCP = 262
ETH0, LO = 2, 1


def connect(to: str = "10.9.9.9", *, pod: abi.Pod | None = POD, **facts: Any) -> tuple[str, str]:
    given = native.ConnectFacts(ctypes.pointer(pod) if pod else None, native.ip(to), socket.IPPROTO_TCP)
    for name, value in facts.items():
        setattr(given, name, value)
    return native.decide_connect(given)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({}, ("mark", "connect_captured"), id="v4"),
        pytest.param({"to": "2001:db8::1"}, ("mark", "connect_captured"), id="v6"),
        pytest.param({"to": "::ffff:10.9.9.9"}, ("mark", "connect_captured"), id="v4-mapped"),
        pytest.param({"protocol": IPPROTO_MPTCP}, ("mark", "connect_captured"), id="mptcp"),
        pytest.param({"pod": None}, ("leave", "connect_not_enrolled"), id="not enrolled"),
        pytest.param({"pod": None, "bound_device": ETH0}, ("leave", "connect_not_enrolled"), id="not enrolled, bound"),
        pytest.param({"pod": LEFT}, ("leave", "connect_not_capturing"), id="has left"),
        pytest.param(GONE, ("refuse", "connect_no_pod"), id="entry gone"),
        pytest.param(GONE | {"to": "2001:db8::1"}, ("refuse", "connect_no_pod"), id="entry gone, v6"),
        pytest.param(GONE | {"to": "10.0.0.2"}, ("refuse", "connect_no_pod"), id="entry gone, own address unknown"),
        pytest.param(GONE | {"port_excluded": 1}, ("refuse", "connect_no_pod"), id="entry gone, excluded port"),
        pytest.param(GONE | {"cidr_excluded": 1}, ("refuse", "connect_no_pod"), id="entry gone, excluded network"),
        pytest.param(GONE | {"protocol": IPPROTO_MPTCP}, ("refuse", "connect_no_pod"), id="entry gone, mptcp"),
        pytest.param(GONE | {"protocol": socket.IPPROTO_UDP}, ("leave", "connect_not_tcp"), id="entry gone, udp"),
        pytest.param(GONE | {"exempt": 1}, ("leave", "connect_exempt"), id="entry gone, the engine"),
        pytest.param(GONE | {"to": "127.0.0.1"}, ("leave", "connect_loopback"), id="entry gone, loopback"),
        pytest.param(GONE | {"to": "::"}, ("leave", "connect_unspecified"), id="entry gone, unspecified"),
        pytest.param({"pod": LEFT, "bound_device": ETH0}, ("leave", "connect_not_capturing"), id="has left, bound"),
        pytest.param({"protocol": socket.IPPROTO_UDP}, ("leave", "connect_not_tcp"), id="udp"),
        pytest.param({"protocol": socket.IPPROTO_SCTP}, ("leave", "connect_not_tcp"), id="sctp"),
        pytest.param(
            {"protocol": socket.IPPROTO_UDP, "bound_device": ETH0}, ("leave", "connect_not_tcp"), id="udp, bound"
        ),
        pytest.param({"exempt": 1}, ("leave", "connect_exempt"), id="the engine"),
        pytest.param({"exempt": 1, "bound_device": ETH0}, ("leave", "connect_exempt"), id="the engine, bound"),
        pytest.param({"to": "127.0.0.1"}, ("leave", "connect_loopback"), id="loopback"),
        pytest.param({"to": "127.255.0.9"}, ("leave", "connect_loopback"), id="all of 127/8"),
        pytest.param({"to": "128.0.0.1"}, ("mark", "connect_captured"), id="next to 127/8"),
        pytest.param({"to": "::1"}, ("leave", "connect_loopback"), id="v6 loopback"),
        pytest.param({"to": "::2"}, ("mark", "connect_captured"), id="next to ::1"),
        pytest.param({"to": "::ffff:127.0.0.1"}, ("leave", "connect_loopback"), id="mapped loopback"),
        pytest.param({"to": "127.0.0.1", "bound_device": LO}, ("leave", "connect_loopback"), id="loopback, bound"),
        pytest.param({"to": "0.0.0.0"}, ("leave", "connect_unspecified"), id="unspecified"),
        pytest.param({"to": "::"}, ("leave", "connect_unspecified"), id="v6 unspecified"),
        pytest.param({"to": "10.0.0.2"}, ("leave", "connect_own_address"), id="own v4"),
        pytest.param({"to": "fd00::2"}, ("leave", "connect_own_address"), id="own v6"),
        pytest.param({"to": "10.0.0.3"}, ("mark", "connect_captured"), id="next to own"),
        pytest.param({"port_excluded": 1}, ("leave", "connect_excluded_port"), id="excluded port"),
        pytest.param({"cidr_excluded": 1}, ("leave", "connect_excluded_cidr"), id="excluded network"),
        pytest.param({"cidr_excluded": 1, "bound_device": 7}, ("leave", "connect_excluded_cidr"), id="excluded, bound"),
        pytest.param({"bound_device": ETH0}, ("refuse", "connect_bound_device"), id="bound to a device"),
        pytest.param({"to": "fe80::1"}, ("refuse", "connect_link_local"), id="link-local"),
        pytest.param({"to": "febf::1"}, ("refuse", "connect_link_local"), id="end of link-local"),
        pytest.param({"to": "fec0::1"}, ("mark", "connect_captured"), id="next to link-local"),
        pytest.param(
            {"to": "fe80::1", "cidr_excluded": 1}, ("leave", "connect_excluded_cidr"), id="excluded link-local"
        ),
        pytest.param({"to": "169.254.169.254"}, ("mark", "connect_captured"), id="v4 link-local has no scope"),
    ],
)
def test_a_connect_is_decided_by_its_facts(facts: dict[str, Any], expected: tuple[str, str]) -> None:
    assert connect(**facts) == expected


def test_a_left_over_address_slot_owns_nothing() -> None:
    pod = native.pod("10.0.0.2", "10.9.9.9")
    pod.addresses = 1
    assert connect("10.9.9.9", pod=pod)[0] == "mark"


def test_all_eight_addresses_of_a_pod_are_its_own() -> None:
    pod = native.pod(*(f"10.0.0.{n}" for n in range(1, 9)))
    assert {connect(f"10.0.0.{n}", pod=pod)[1] for n in range(1, 9)} == {"connect_own_address"}


SO_MARK, SO_BINDTODEVICE, SO_BINDTOIFINDEX = 36, 25, 62
ESTABLISHED, SYN_SENT, CLOSE, LISTEN = 1, 2, 7, 10
MARK = abi.MARK
APPS_MARK = 0xABCDE000  # outside our mask


@pytest.mark.parametrize(
    ("level", "option", "expected"),
    [
        pytest.param(socket.SOL_SOCKET, SO_MARK, True, id="SO_MARK"),
        pytest.param(socket.SOL_SOCKET, SO_BINDTODEVICE, True, id="SO_BINDTODEVICE"),
        pytest.param(socket.SOL_SOCKET, SO_BINDTOIFINDEX, True, id="SO_BINDTOIFINDEX"),
        pytest.param(socket.SOL_SOCKET, socket.SO_KEEPALIVE, False, id="another of that level"),
        pytest.param(socket.SOL_IP, SO_MARK, False, id="the same number of IP"),
        pytest.param(socket.IPPROTO_TCP, SO_BINDTODEVICE, False, id="the same number of TCP"),
        pytest.param(socket.IPPROTO_IPV6, SO_BINDTOIFINDEX, False, id="the same number of IPv6"),
        pytest.param(socket.IPPROTO_TCP, socket.TCP_NODELAY, False, id="TCP_NODELAY"),
    ],
)
def test_only_three_options_are_looked_at(level: int, option: int, expected: bool) -> None:
    assert native.option_reroutes(level, option) is expected


REFUSED_DEVICE, REFUSED_MARK = ("refuse", "setsockopt_device"), ("refuse", "setsockopt_mark")
LEFT_ALONE = ("leave", "setsockopt_not_captured")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({"option": SO_BINDTODEVICE}, REFUSED_DEVICE, id="device"),
        pytest.param({"option": SO_BINDTOIFINDEX}, REFUSED_DEVICE, id="device by index"),
        pytest.param({"option": SO_MARK}, REFUSED_MARK, id="mark"),
        pytest.param({"mark": MARK | APPS_MARK}, REFUSED_DEVICE, id="the application's bits beside ours"),
        pytest.param({"state": SYN_SENT}, REFUSED_DEVICE, id="connecting"),
        pytest.param({"state": 4}, REFUSED_DEVICE, id="half closed"),
        pytest.param({"state": CLOSE}, LEFT_ALONE, id="its connect failed, or is over"),
        pytest.param({"state": LISTEN}, LEFT_ALONE, id="listens since its connect failed"),
        pytest.param({"mark": 0}, LEFT_ALONE, id="not marked"),
        pytest.param({"mark": APPS_MARK}, LEFT_ALONE, id="the application's mark"),
        pytest.param({"mark": abi.MARK_DIRECT | APPS_MARK}, REFUSED_DEVICE, id="goes directly"),
        pytest.param({"mark": abi.MARK_DIRECT, "option": SO_MARK}, REFUSED_MARK, id="goes directly, mark"),
        pytest.param({"mark": MARK - 1}, LEFT_ALONE, id="next to our marks"),
        pytest.param({"mark": abi.MARK_DIRECT + 1}, LEFT_ALONE, id="next to our marks, above"),
        pytest.param({"enrolled": 0}, LEFT_ALONE, id="not enrolled: somebody else's mark"),
        pytest.param({"protocol": socket.IPPROTO_UDP}, LEFT_ALONE, id="udp"),
        pytest.param({"protocol": 0}, LEFT_ALONE, id="no protocol: unix, netlink"),
        pytest.param({"protocol": IPPROTO_MPTCP, "mark": 0}, REFUSED_DEVICE, id="mptcp, whose subflow has the mark"),
        pytest.param({"protocol": IPPROTO_MPTCP, "mark": 0, "option": SO_MARK}, REFUSED_MARK, id="mptcp mark"),
        pytest.param({"protocol": IPPROTO_MPTCP, "mark": 0, "state": CLOSE}, LEFT_ALONE, id="mptcp not connected"),
        pytest.param({"protocol": IPPROTO_MPTCP, "mark": 0, "state": LISTEN}, LEFT_ALONE, id="mptcp listening"),
        pytest.param({"protocol": IPPROTO_MPTCP, "enrolled": 0}, LEFT_ALONE, id="mptcp, not enrolled"),
    ],
)
def test_a_late_option_is_decided_by_its_facts(facts: dict[str, int], expected: tuple[str, str]) -> None:
    given = native.SetsockoptFacts(SO_BINDTODEVICE, socket.IPPROTO_TCP, ESTABLISHED, MARK, 1)
    for name, value in facts.items():
        setattr(given, name, value)
    assert native.decide_setsockopt(given) == expected


def lookup(remote: str, local: str, port: int, **facts: Any) -> tuple[str, str, int]:
    pod = facts.pop("pod", POD)
    given = native.LookupFacts(ctypes.pointer(pod) if pod else None, native.ip(remote), native.ip(local), ETH0, port)
    for name, value in facts.items():
        setattr(given, name, value)
    return native.decide_lookup(given)


OVER_LO = {"ingress_ifindex": LO}
EXCLUDED_OVER_LO = OVER_LO | {"port_excluded": 1}
LEFT_OVER_LO = OVER_LO | {"pod": LEFT}
GONE_OVER_LO = OVER_LO | {"pod": None}
OUTBOUND = ("assign", "lookup_outbound", abi.Role.OUTBOUND)
TUNNEL = ("assign", "lookup_tunnel", abi.Role.INBOUND_TUNNEL)
PLAIN = ("assign", "lookup_plain", abi.Role.INBOUND_PLAIN)
SELF = ("pass", "lookup_self", 0)
LOOPBACK = ("pass", "lookup_loopback", 0)
OWN_LISTENER = ("drop", "lookup_own_listener", 0)
NODE = ("pass", "lookup_node", 0)
LEAVE = ("pass", "lookup_not_capturing", 0)
EXCLUDED = ("pass", "lookup_excluded_port", 0)
NO_POD = ("drop", "lookup_no_pod", 0)
DIRECT = ("pass", "lookup_direct", 0)
ANNOUNCED = {"announced": 1}


@pytest.mark.parametrize(
    ("remote", "local", "port", "facts", "expected"),
    [
        pytest.param("10.1.1.1", "10.0.0.2", 80, {}, PLAIN, id="plaintext"),
        pytest.param("2001:db8::1", "fd00::2", 80, {}, PLAIN, id="v6 plaintext"),
        pytest.param("10.1.1.1", "10.0.0.2", 15008, {}, TUNNEL, id="tunnel"),
        pytest.param("2001:db8::1", "fd00::2", 15008, {}, TUNNEL, id="v6 tunnel"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, {"port_excluded": 1}, EXCLUDED, id="excluded"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, {"probe": 1}, NODE, id="from its node"),
        pytest.param("2001:db8::1", "fd00::2", 80, {"probe": 1}, NODE, id="v6 from its node"),
        pytest.param("10.1.1.1", "10.0.0.2", 15008, {"probe": 1}, TUNNEL, id="tunnel from its node"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, {"probe": 1, "pod": LEFT}, LEAVE, id="has left, from its node"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, {"probe": 1, "pod": None}, NO_POD, id="entry gone, from its node"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, ANNOUNCED, DIRECT, id="announced"),
        pytest.param("2001:db8::1", "fd00::2", 80, ANNOUNCED, DIRECT, id="v6 announced"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, ANNOUNCED | {"port_excluded": 1}, DIRECT, id="announced, excluded"),
        pytest.param("10.1.1.1", "10.0.0.2", 15008, ANNOUNCED, TUNNEL, id="announced, tunnel port"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, ANNOUNCED | {"pod": LEFT}, LEAVE, id="announced, has left"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, ANNOUNCED | {"pod": None}, NO_POD, id="announced, entry gone"),
        pytest.param("10.0.0.2", "10.9.9.9", 80, ANNOUNCED | OVER_LO, OUTBOUND, id="announced, and came back in"),
        pytest.param("10.0.0.2", "10.0.0.2", 80, {}, SELF, id="self"),
        pytest.param("fd00::2", "fd00::2", 15008, {}, SELF, id="self, tunnel port"),
        pytest.param("10.0.0.2", "10.0.0.2", 80, OVER_LO, SELF, id="self over lo"),
        pytest.param("fd00::2", "10.0.0.2", 80, {}, SELF, id="from another own address"),
        pytest.param("127.0.0.1", "127.0.0.1", 80, OVER_LO, LOOPBACK, id="loopback"),
        pytest.param("::1", "::1", 80, OVER_LO, LOOPBACK, id="v6 loopback"),
        pytest.param("127.0.0.1", "10.0.0.2", 80, OVER_LO, SELF, id="loopback to own address"),
        pytest.param("127.0.0.1", "127.0.0.1", 41001, OVER_LO, OWN_LISTENER, id="the outbound listener"),
        pytest.param("::1", "::1", 41002, OVER_LO, OWN_LISTENER, id="the tunnel listener"),
        pytest.param("127.0.0.1", "127.0.0.9", 41003, OVER_LO, OWN_LISTENER, id="the plaintext listener"),
        pytest.param("10.1.1.1", "10.0.0.2", 41001, {}, PLAIN, id="a listener's port from outside"),
        pytest.param("10.0.0.2", "10.9.9.9", 80, OVER_LO, OUTBOUND, id="came back in"),
        pytest.param("fd00::2", "2001:db8::1", 80, OVER_LO, OUTBOUND, id="v6 came back in"),
        pytest.param("10.0.0.2", "10.9.9.9", 15008, OVER_LO, OUTBOUND, id="an app dials some :15008"),
        pytest.param("10.0.0.7", "10.9.9.9", 80, OVER_LO, OUTBOUND, id="from a second address"),
        pytest.param("10.0.0.2", "10.9.9.9", 80, EXCLUDED_OVER_LO, OUTBOUND, id="only inbound is excluded"),
        pytest.param("10.1.1.1", "10.9.9.9", 80, {}, PLAIN, id="unknown address from outside is never outbound"),
        pytest.param("fe80::1", "fe80::2", 80, {}, PLAIN, id="link-local neighbour is never outbound"),
        pytest.param("fe80::2", "fe80::2", 80, {}, SELF, id="own link-local"),
        pytest.param("10.9.9.9", "10.9.9.9", 80, OVER_LO, SELF, id="unknown own address"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, {"pod": LEFT}, LEAVE, id="has left"),
        pytest.param("10.1.1.1", "10.0.0.2", 15008, {"pod": LEFT}, LEAVE, id="has left, tunnel port"),
        pytest.param("10.0.0.2", "10.9.9.9", 80, LEFT_OVER_LO, OUTBOUND, id="marked just before it left"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, {"pod": None}, NO_POD, id="entry gone"),
        pytest.param("10.1.1.1", "10.0.0.2", 80, {"pod": None, "port_excluded": 1}, NO_POD, id="entry gone, excluded"),
        pytest.param("127.0.0.1", "127.0.0.1", 80, GONE_OVER_LO, NO_POD, id="entry gone, loopback"),
    ],
)  # fmt: skip
def test_a_syn_is_decided_by_its_facts(
    remote: str, local: str, port: int, facts: dict[str, Any], expected: tuple[str, str, int]
) -> None:
    assert lookup(remote, local, port, **facts) == expected
