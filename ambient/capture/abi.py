"""The Python mirror of bpf/abi.h: structs, numbers and names. No I/O; a test compares it with the C side."""

from __future__ import annotations

import ctypes
import enum

from ambient.model.mesh import IPAddress, IPNetwork, packed16

ABI_VERSION = 1
MARK = 0x53A
MARK_DIRECT = 0x53B
MARK_MASK = 0xFFF
ENDPOINTS = 16  # of one verdict
MAX_VERDICTS = 65536
MAX_FLOWS = 16384
SEATS = 4096  # for the flows of one pod
RING_BYTES = 4 << 20
RING_BACKLOG = RING_BYTES - (MAX_FLOWS + 1024) * (128 + 8)  # unread, up to which more direct connections may begin
POD_ADDRESSES = 8
CAPTURE = 1  # amb_pod.flags


class Role(enum.IntEnum):
    """What a listening socket in a pod is for."""

    OUTBOUND = 1
    INBOUND_TUNNEL = 2
    INBOUND_PLAIN = 3


class Direction(enum.IntEnum):
    OUTBOUND = 1
    INBOUND = 2
    PROBED = 3


class Reason(enum.IntEnum):
    """Why a program did what it did; the lower-case name is the metric's label. Append only, as in C."""

    CONNECT_NOT_ENROLLED = 0
    CONNECT_NOT_CAPTURING = 1
    CONNECT_NOT_TCP = 2
    CONNECT_EXEMPT = 3
    CONNECT_LOOPBACK = 4
    CONNECT_UNSPECIFIED = 5
    CONNECT_OWN_ADDRESS = 6
    CONNECT_EXCLUDED_PORT = 7
    CONNECT_EXCLUDED_CIDR = 8
    CONNECT_CAPTURED = 9
    CONNECT_BOUND_DEVICE = 10
    CONNECT_LINK_LOCAL = 11
    CONNECT_MARK_FAILED = 12
    LOOKUP_NOT_CAPTURING = 13
    LOOKUP_LOOPBACK = 14
    LOOKUP_SELF = 15
    LOOKUP_EXCLUDED_PORT = 16
    LOOKUP_OUTBOUND = 17
    LOOKUP_TUNNEL = 18
    LOOKUP_PLAIN = 19
    LOOKUP_NO_POD = 20
    LOOKUP_OWN_LISTENER = 21
    LOOKUP_NO_LISTENER = 22
    LOOKUP_ASSIGN_FAILED = 23
    PEERNAME_SHOWN = 24
    CONNECT_NO_POD = 25
    CONNECT_SPARE = 26
    LOOKUP_SPARE = 27
    SETSOCKOPT_NOT_CAPTURED = 28
    SETSOCKOPT_DEVICE = 29
    SETSOCKOPT_MARK = 30
    SETSOCKOPT_SPARE = 31
    LOOKUP_NODE = 32
    CONNECT_DIRECT = 33
    CONNECT_PASSED = 34
    CONNECT_DENIED = 35
    CONNECT_EXPIRED = 36
    CONNECT_NO_ROOM = 37
    CONNECT_NO_SERVER = 38
    CONNECT_DIVERTED = 39
    LOOKUP_DIRECT = 40
    FLOW_SEALED = 41
    FLOW_UNTOLD = 42
    FLOW_STOPPED = 43
    FLOW_LOOSE = 44


class Kind(enum.IntEnum):
    """What a verdict says of a connection."""

    DIRECT = 1  # to one of the endpoints, those on this node without a proxy
    PASS = 2  # unknown to the mesh: left alone
    REFUSE = 3  # EPERM


class EndedState(enum.IntFlag):
    ADMITTED = 1
    SEALED = 2


class Ip(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * 16),)

    @classmethod
    def of(cls, address: IPAddress) -> Ip:
        return cls((ctypes.c_uint8 * 16)(*packed16(address)))


class Pod(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint32),
        ("addresses", ctypes.c_uint32),
        ("listener_port", ctypes.c_uint16 * 4),
        ("address", Ip * POD_ADDRESSES),
    )


class PortKey(ctypes.Structure):
    _fields_ = (
        ("netns_cookie", ctypes.c_uint64),
        ("port", ctypes.c_uint16),
        ("direction", ctypes.c_uint16),
        ("zero", ctypes.c_uint32),
    )


class CidrKey(ctypes.Structure):
    """A trie's key has no gap after the length, so the cookie is two words here."""

    _pack_ = 4
    _fields_ = (("prefix_len", ctypes.c_uint32), ("netns_cookie", ctypes.c_uint64), ("ip", Ip))

    @classmethod
    def of(cls, cookie: int, network: IPNetwork) -> CidrKey:
        length = network.prefixlen + (96 if network.version == 4 else 0)
        return cls(64 + length, cookie, Ip.of(network.network_address))


class ListenerKey(ctypes.Structure):
    _fields_ = (("netns_cookie", ctypes.c_uint64), ("role", ctypes.c_uint32), ("zero", ctypes.c_uint32))


class ClientKey(ctypes.Structure):
    _fields_ = (
        ("netns_cookie", ctypes.c_uint64),
        ("ip", Ip),
        ("port", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


class ClientValue(ctypes.Structure):
    _fields_ = (("ip", Ip), ("port", ctypes.c_uint32), ("writer", ctypes.c_uint32))


class VerdictKey(ctypes.Structure):
    _fields_ = (
        ("client", ctypes.c_uint64),
        ("ip", Ip),
        ("port", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


class Endpoint(ctypes.Structure):
    _fields_ = (
        ("ip", Ip),
        ("port", ctypes.c_uint32),
        ("weight", ctypes.c_uint32),
        ("server", ctypes.c_uint64),
    )


class Verdict(ctypes.Structure):
    _fields_ = (
        ("number", ctypes.c_uint64),
        ("kind", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("weight", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
        ("endpoint", Endpoint * ENDPOINTS),
    )


class FlowKey(ctypes.Structure):
    _fields_ = (
        ("source", Ip),
        ("destination", Ip),
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
    )


class Flow(ctypes.Structure):
    _fields_ = (
        ("client", ctypes.c_uint64),
        ("server", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("started", ctypes.c_uint64),
        ("established", ctypes.c_uint64),
        ("admitted", ctypes.c_uint64),
        ("dialled", Ip),
        ("dialled_port", ctypes.c_uint16),
        ("kind", ctypes.c_uint8),
        ("zero", ctypes.c_uint8),
        ("zero_too", ctypes.c_uint32),
    )


class Seat(ctypes.Structure):
    _fields_ = (
        ("client", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


class Ended(ctypes.Structure):
    _fields_ = (
        ("client", ctypes.c_uint64),
        ("server", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("started", ctypes.c_uint64),
        ("established", ctypes.c_uint64),
        ("ended", ctypes.c_uint64),
        ("bytes_out", ctypes.c_uint64),
        ("bytes_in", ctypes.c_uint64),
        ("flow", FlowKey),
        ("dialled", Ip),
        ("dialled_port", ctypes.c_uint16),
        ("error", ctypes.c_uint16),
        ("kind", ctypes.c_uint8),
        ("state", ctypes.c_uint8),
        ("last", ctypes.c_uint8),
        ("zero", ctypes.c_uint8),
        ("zero_too", ctypes.c_uint32),
    )
