"""Compiles decide.h and abi.h for this machine and calls them: no kernel, no root."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from ipaddress import ip_address
from pathlib import Path

from ambient.capture import abi

HERE = Path(__file__).parent
BPF = HERE.parent.parent / "bpf"
VERDICTS = ("leave", "mark", "refuse", "direct")
LOOKUP_VERDICTS = ("pass", "assign", "drop")


class ConnectFacts(ctypes.Structure):
    _fields_ = (
        ("pod", ctypes.POINTER(abi.Pod)),
        ("to", abi.Ip),
        ("protocol", ctypes.c_uint32),
        ("bound_device", ctypes.c_uint32),
        ("enrolled", ctypes.c_uint8),
        ("exempt", ctypes.c_uint8),
        ("port_excluded", ctypes.c_uint8),
        ("cidr_excluded", ctypes.c_uint8),
    )


class SetsockoptFacts(ctypes.Structure):
    _fields_ = (
        ("option", ctypes.c_uint32),
        ("protocol", ctypes.c_uint32),
        ("state", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
        ("enrolled", ctypes.c_uint8),
    )


class LookupFacts(ctypes.Structure):
    _fields_ = (
        ("pod", ctypes.POINTER(abi.Pod)),
        ("remote", abi.Ip),
        ("local", abi.Ip),
        ("ingress_ifindex", ctypes.c_uint32),
        ("local_port", ctypes.c_uint16),
        ("port_excluded", ctypes.c_uint8),
        ("probe", ctypes.c_uint8),
        ("announced", ctypes.c_uint8),
    )


class DirectFacts(ctypes.Structure):
    _fields_ = (
        ("protocol", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("expired", ctypes.c_uint8),
        ("room", ctypes.c_uint8),
        ("remote", ctypes.c_uint8),
        ("reachable", ctypes.c_uint8),
    )


class _Layout(ctypes.Structure):
    _fields_ = (("type", ctypes.c_char_p), ("field", ctypes.c_char_p), ("value", ctypes.c_long))


@functools.cache
def library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "native.so"
        subprocess.run(
            [
                *(
                    shutil.which("cc") or "cc",
                    "-std=gnu11",
                    "-O1",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-Wno-unknown-pragmas",
                ),
                *("-shared", "-fPIC", f"-I{BPF}", str(HERE / "native.c"), "-o", str(built)),
            ],
            check=True,
        )
        return ctypes.CDLL(str(built))


def decide_connect(facts: ConnectFacts) -> tuple[str, str]:
    """(verdict, reason)"""
    answer = library().decide_connect(ctypes.byref(facts))
    return VERDICTS[answer >> 16], abi.Reason(answer & 0xFFFF).name.lower()


def option_reroutes(level: int, option: int) -> bool:
    return bool(library().option_reroutes(level, option))


def decide_setsockopt(facts: SetsockoptFacts) -> tuple[str, str]:
    """(verdict, reason)"""
    answer = library().decide_setsockopt(ctypes.byref(facts))
    return VERDICTS[answer >> 16], abi.Reason(answer & 0xFFFF).name.lower()


def decide_lookup(facts: LookupFacts) -> tuple[str, str, int]:
    """(verdict, reason, role)"""
    answer = library().decide_lookup(ctypes.byref(facts))
    return LOOKUP_VERDICTS[answer >> 16 & 0xFF], abi.Reason(answer & 0xFFFF).name.lower(), answer >> 24


def decide_direct(facts: DirectFacts) -> tuple[str, str]:
    """(verdict, reason)"""
    answer = library().decide_direct(ctypes.byref(facts))
    return VERDICTS[answer >> 16], abi.Reason(answer & 0xFFFF).name.lower()


def choose(verdict: abi.Verdict, random: int) -> int:
    return int(library().choose(ctypes.byref(verdict), ctypes.c_uint32(random)))


def admits(flow: abi.Flow, netns_cookie: int, verdict: abi.Verdict | None, taken: bool) -> bool:
    pointer = ctypes.byref(verdict) if verdict else None
    return bool(library().admits(ctypes.byref(flow), ctypes.c_uint64(netns_cookie), pointer, taken))


def layout() -> dict[tuple[str, str], int]:
    """(struct, field) -> offset, (struct, "") -> size, ("", name) -> number."""
    rows = (_Layout * 256).in_dll(library(), "layout")
    found = {}
    for row in rows:
        if row.type is None:
            return found
        found[row.type.decode(), row.field.decode()] = row.value
    raise AssertionError("the layout has no end")


def pod(*addresses: str, capture: bool = True, ports: tuple[int, int, int] = (0, 0, 0)) -> abi.Pod:
    made = abi.Pod(abi.CAPTURE if capture else 0, len(addresses))
    made.listener_port[1:4] = ports
    for at, text in enumerate(addresses):
        made.address[at] = ip(text)
    return made


def ip(text: str) -> abi.Ip:
    return abi.Ip.of(ip_address(text))
