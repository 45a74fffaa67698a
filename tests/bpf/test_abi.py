"""bpf/abi.h and its Python mirror say the same."""

from __future__ import annotations

import ctypes
import re
from ipaddress import ip_network

import pytest

from ambient.capture import abi
from ambient.model.mesh import TUNNEL_PORT

from . import native

MIRRORS = {
    "amb_ip": abi.Ip,
    "amb_pod": abi.Pod,
    "amb_port_key": abi.PortKey,
    "amb_cidr_key": abi.CidrKey,
    "amb_listener_key": abi.ListenerKey,
    "amb_client_key": abi.ClientKey,
    "amb_client_value": abi.ClientValue,
    "amb_verdict_key": abi.VerdictKey,
    "amb_endpoint": abi.Endpoint,
    "amb_verdict": abi.Verdict,
    "amb_flow_key": abi.FlowKey,
    "amb_flow": abi.Flow,
    "amb_seat": abi.Seat,
    "amb_ended": abi.Ended,
}
NUMBERS = {
    "AMB_ABI_VERSION": abi.ABI_VERSION,
    "AMB_MARK": abi.MARK,
    "AMB_MARK_DIRECT": abi.MARK_DIRECT,
    "AMB_MARK_MASK": abi.MARK_MASK,
    "AMB_ENDPOINTS": abi.ENDPOINTS,
    "AMB_MAX_VERDICTS": abi.MAX_VERDICTS,
    "AMB_MAX_FLOWS": abi.MAX_FLOWS,
    "AMB_SEATS": abi.SEATS,
    "AMB_RING_BYTES": abi.RING_BYTES,
    "AMB_RING_BACKLOG": abi.RING_BACKLOG,
    "AMB_TUNNEL_PORT": TUNNEL_PORT,
    "AMB_POD_ADDRESSES": abi.POD_ADDRESSES,
    "AMB_POD_CAPTURE": abi.CAPTURE,
    "AMB_REASONS": len(abi.Reason),
    "AMB_CIDR_LONGEST": 64 + 128,
}


@pytest.mark.parametrize("name", MIRRORS)
def test_a_mirrored_struct_has_the_same_size_and_offsets(name: str) -> None:
    mirror: type[ctypes.Structure] = MIRRORS[name]
    rows = {field: value for (struct, field), value in native.layout().items() if struct == name}
    assert rows.pop("") == ctypes.sizeof(mirror)
    assert {field: getattr(mirror, field).offset for field in rows} == rows


def test_numbers_with_a_meaning_are_the_same() -> None:
    assert {name: value for (struct, name), value in native.layout().items() if not struct} == NUMBERS


def _enumerators(prefix: str) -> list[str]:
    return re.findall(rf"^  {prefix}(\w+)(?: = \d+)?,", (native.BPF / "abi.h").read_text(), re.MULTILINE)


def test_the_reasons_are_the_same_in_the_same_order() -> None:
    prefixes = ("CONNECT_", "LOOKUP_", "PEERNAME_", "SETSOCKOPT_", "FLOW_")
    declared = [name for name in _enumerators("AMB_") if name.startswith(prefixes)]
    assert declared == [reason.name for reason in sorted(abi.Reason)]


def test_the_roles_are_the_same() -> None:
    assert _enumerators("AMB_ROLE_") == [role.name for role in abi.Role]


def test_the_kinds_of_verdict_and_the_states_of_what_ended_are_the_same() -> None:
    assert _enumerators("AMB_KIND_") == [kind.name for kind in abi.Kind]
    assert _enumerators("AMB_ENDED_") == [state.name for state in abi.EndedState]


def test_a_network_of_either_family_becomes_a_prefix_of_cookie_and_address() -> None:
    assert abi.CidrKey.of(7, ip_network("10.0.0.0/8")).prefix_len == 64 + 96 + 8
    assert abi.CidrKey.of(7, ip_network("fd00::/8")).prefix_len == 64 + 8
