"""Which rows belong to which inventory, and when one is complete."""

from __future__ import annotations

from typing import cast

from ambient.dataplane import abi
from ambient.dataplane.inventory import Inventories
from ambient.dataplane.link import Link
from ambient.dataplane.wire import Message


class FakeLink:
    is_open = True


def links(count: int) -> list[Link]:
    return [cast(Link, FakeLink()) for _ in range(count)]


def row(number: int) -> Message:
    return Message(abi.Type.ROW_CONN, abi.Conn(id=number))


END = Message(abi.Type.ROW_END, abi.Ref())


def numbers(found: list[Message]) -> list[int]:
    return [cast(abi.Conn, message.body).id for message in found]


def test_a_row_belongs_to_the_oldest_inventory_that_its_worker_has_not_finished() -> None:
    both, (a, b) = Inventories(), links(2)
    _, first = both.begin([a, b])
    _, second = both.begin([a, b])
    both.heard(a, row(1))
    both.heard(a, END)
    both.heard(a, row(2))
    both.heard(b, row(3))
    assert (numbers(first.messages), numbers(second.messages)) == ([1, 3], [2])
    assert not first.done.is_set()
    both.heard(b, END)
    assert first.done.is_set()
    assert not second.done.is_set()


def test_a_worker_that_is_lost_keeps_nobody_waiting_and_the_others_are_still_waited_for() -> None:
    inventories, (a, b) = Inventories(), links(2)
    _, rows = inventories.begin([a, b])
    inventories.lost(a)
    assert not rows.done.is_set()
    inventories.heard(b, row(1))
    inventories.heard(b, END)
    assert rows.done.is_set()
    assert rows.rows[0][0] is b


def test_an_inventory_of_nobody_is_complete() -> None:
    _, rows = Inventories().begin([])
    assert rows.done.is_set()


def test_rows_of_an_inventory_that_nobody_waits_for_any_more_are_dropped() -> None:
    inventories, (a,) = Inventories(), links(1)
    number, rows = inventories.begin([a])
    inventories.end(number)
    inventories.heard(a, row(1))
    assert rows.messages == []
