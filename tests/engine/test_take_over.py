"""One agent takes over from another that lives: no record is told to both, and none to neither."""

from __future__ import annotations

import pytest

from ambient.dataplane import abi, wire
from tests.engine import apps, harness, verdicts

pytestmark = pytest.mark.kernel

RECORDS = 3


def seen(agent: harness.agent.Agent, count: int) -> None:
    agent.send(wire.Message(abi.Type.SEEN, abi.Ref(id=count)), worker=0)


def some_end(far: harness.Node, app: apps.App) -> None:
    door = far.outbound(verdicts.Choice(app.address))
    for _ in range(RECORDS):
        with apps.connect(door) as client:
            client.sendall(b"hello")
            assert apps.read_exactly(client, 5) == b"hello"
    far.agent.await_ended(RECORDS)


@pytest.mark.parametrize("count", [0, 1, RECORDS, RECORDS + 7])
@pytest.mark.parametrize("garbage", [False, True], ids=["", "among what is not heard any more"])
def test_what_the_former_has_seen_by_the_time_it_hears_of_the_newer_is_not_told_again(
    far: harness.Node, count: int, *, garbage: bool
) -> None:
    far.agent.settings(flags=abi.SettingsFlag.ACKNOWLEDGES)
    with apps.App(apps.echo) as app:
        some_end(far, app)
        newer = harness.agent.Agent(far.engine.run_dir, 1)
        try:
            far.agent.wait(lambda: far.agent.lost == {0}, "it hears of the newer one")
            if garbage:
                far.agent.cut(12345)
            seen(far.agent, count)
            newer.settings(flags=abi.SettingsFlag.ACKNOWLEDGES)
            left = max(RECORDS - count, 0)
            newer.await_ended(left)
            newer.inventory()  # whatever else there was has been told before
            assert len(newer.ended) == left
            numbers = [each.body.id for each in far.agent.ended]
            assert [each.body.id for each in newer.ended] == numbers[RECORDS - left :]
        finally:
            newer.close()
            far.agent.close()
    far.next_agent()


@pytest.mark.parametrize("what", ["nothing", "half a message", "an impossible size"])
def test_a_former_that_goes_or_talks_nonsense_costs_nothing(far: harness.Node, what: str) -> None:
    far.agent.settings(flags=abi.SettingsFlag.ACKNOWLEDGES)
    with apps.App(apps.echo) as app:
        some_end(far, app)
        newer = harness.agent.Agent(far.engine.run_dir, 1)
        try:
            far.agent.wait(lambda: far.agent.lost == {0}, "it hears of the newer one")
            if what != "nothing":
                far.agent.send_packet(b"\1" * 4 if what == "half a message" else b"\xff" * 64, worker=0)
            far.agent.close()
            newest = harness.agent.Agent(far.engine.run_dir, 1)
            try:
                newest.settings(flags=abi.SettingsFlag.ACKNOWLEDGES)
                assert len(newest.await_ended(RECORDS)) == RECORDS
            finally:
                newest.close()
        finally:
            newer.close()
    far.next_agent()


def test_a_former_is_let_go_when_the_newer_is_told(far: harness.Node) -> None:
    before = far.engine.fds()
    newer = harness.agent.Agent(far.engine.run_dir, 1)
    try:
        far.agent.wait(lambda: far.agent.lost == {0}, "it hears of the newer one")
        newer.settings(flags=abi.SettingsFlag.ACKNOWLEDGES)
        newer.inventory()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            seen(far.agent, 0)
    finally:
        newer.close()
        far.agent.close()
    far.next_agent()
    assert far.engine.fds() <= before + 4 * far.stash
