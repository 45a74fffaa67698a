"""Bytes are given to who asks first, whole, and to the next when they are given back."""

from __future__ import annotations

from ambient.xds.room import Room


def granted() -> None:
    """For claims whose grant nobody waits for."""


def test_who_asks_gets_it_while_there_is_room_and_then_waits() -> None:
    room, told = Room(100), list[str]()
    one = room.claim(60, lambda: told.append("one"))
    two = room.claim(60, lambda: told.append("two"))
    assert (one.granted, two.granted, room.left, told) == (True, False, 40, [])
    one.release()
    assert (two.granted, room.left, told) == (True, 40, ["two"])


def test_nobody_overtakes_who_waits_for_more() -> None:
    room, told = Room(100), list[str]()
    first = room.claim(50, granted)
    room.claim(90, lambda: told.append("much"))
    small = room.claim(10, lambda: told.append("little"))
    assert not small.granted
    first.release()
    assert told == ["much", "little"]


def test_who_waits_no_longer_lets_the_next_pass() -> None:
    room, told = Room(100), list[str]()
    room.claim(50, granted)
    much = room.claim(90, granted)
    room.claim(10, lambda: told.append("little"))
    much.release()
    assert (told, room.left) == (["little"], 40)


def test_what_is_released_twice_is_given_back_once() -> None:
    room = Room(100)
    claim = room.claim(60, granted)
    claim.release()
    claim.release()
    assert room.left == 100
