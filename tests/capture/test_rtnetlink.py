"""rtnetlink: the kernel's answers of every shape, and one real one. Needs no privileges."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from ambient.capture import host
from ambient.capture.rtnetlink import ADDRESS, RULE, Flag, Kind, Rtnetlink
from ambient.model.mesh import address

MULTI, INTERRUPTED, ERROR, DONE, NEW_ADDRESS = 0x2, 0x10, 2, 3, 20


def a_message(kind: int, payload: bytes, *, sequence: int, flags: int = MULTI) -> bytes:
    message = struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload
    return message.ljust((len(message) + 3) & ~3, b"\0")


def an_address(ip: str, *, sequence: int, flags: int = MULTI) -> bytes:
    packed = address(ip).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    attribute = struct.pack("=HH", 4 + len(packed), 1) + packed
    return a_message(NEW_ADDRESS, ADDRESS.pack(family, 32, 0, 0, 1) + attribute, sequence=sequence, flags=flags)


def the_end(sequence: int, number: int = 0, kind: int = DONE) -> bytes:
    return a_message(kind, struct.pack("=i", -number), sequence=sequence)


class Kernel:
    """Says what it was told to, a packet at a time."""

    def __init__(self, *packets: bytes) -> None:
        self._packets = list(packets)
        self.asked: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.asked.append(data)

    def recv(self, _: int) -> bytes:
        return self._packets.pop(0)

    def close(self) -> None:
        assert not self._packets, "answers that nobody read"


def told(*packets: bytes) -> Rtnetlink:
    netlink = Rtnetlink()
    netlink._socket.close()
    netlink._socket = Kernel(*packets)  # type: ignore[assignment]
    return netlink


def shown(netlink: Rtnetlink, family: int = socket.AF_UNSPEC) -> list[str]:
    with netlink:
        return [str(address(entry.attributes[1])) for entry in netlink.dump(Kind.GET_ADDRESSES, family)]


ONE, TWO = an_address("10.0.0.1", sequence=1), an_address("fd00::2", sequence=1)


@pytest.mark.parametrize(
    "packets",
    [
        pytest.param([ONE + TWO + the_end(1)], id="one packet"),
        pytest.param([ONE, TWO, the_end(1)], id="a packet each"),
        pytest.param([an_address("192.0.2.9", sequence=0) + ONE, TWO + the_end(1)], id="behind a late answer"),
    ],
)
def test_a_dump_is_all_that_belongs_to_it(packets: list[bytes]) -> None:
    assert shown(told(*packets)) == ["10.0.0.1", "fd00::2"]


def test_of_a_family_that_is_not_there_nothing_is_listed() -> None:
    assert shown(told(ONE + the_end(1)), socket.AF_INET6) == []


def test_a_list_that_changed_meanwhile_is_taken_again() -> None:
    torn = an_address("10.0.0.9", sequence=1, flags=MULTI | INTERRUPTED) + the_end(1)
    assert shown(told(torn, an_address("10.0.0.1", sequence=2) + the_end(2))) == ["10.0.0.1"]


def test_a_refusal_is_the_kernels_errno() -> None:
    netlink = told(the_end(1, errno.EEXIST, ERROR))
    with netlink, pytest.raises(FileExistsError):
        netlink.change(Kind.NEW_RULE, Flag.CREATE, RULE.pack(socket.AF_INET, *[0] * 8), {6: 1508})


def test_a_change_that_was_made_says_nothing() -> None:
    with told(the_end(1, 0, ERROR)) as netlink:
        netlink.change(Kind.DELETE_RULE, Flag(0), RULE.pack(socket.AF_INET, *[0] * 8), {6: 1508, 7: b"odd"})


def test_the_real_kernel_lists_loopbacks_address() -> None:
    assert address("127.0.0.1") in host.addresses()
