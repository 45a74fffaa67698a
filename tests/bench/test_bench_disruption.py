"""The goals of an upgrade, a crash, an outage: a miss of any of them is told. And the table, and the load itself."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess

import pytest

from bench.disruption import events, loads, of_plane, report


@pytest.mark.parametrize("path", ["across nodes", "same node"])
def test_a_loss_on_any_path_is_told(path: str) -> None:
    good = {
        "open": 1, "answered": 9, "lost": 0, "broken": 0, "came": 9, "failed": 0, "failed_late": 0,
        "stall_ms": 1.0, "slowest_ms": 1.0, "errors": {},
    }  # fmt: skip
    killed, restarted = events.EVENTS[-1], events.EVENTS[0]

    def missed(event: events.Event, **changes: int) -> list[str]:
        tallies = {each: events.Tally(**good) for each in ("across nodes", "same node")}  # type: ignore[arg-type]
        tallies[path] = dataclasses.replace(tallies[path], **changes)  # type: ignore[arg-type]
        return events.Outcome(event, 1.0, tallies, []).missed()

    assert missed(restarted) == missed(killed) == []
    for changes in ({"lost": 1}, {"broken": 1}, {"failed": 1}, {"came": 0}, {"answered": 0}):
        assert len(missed(restarted, **changes)) == 1, changes
    spared = path == "same node"
    assert len(missed(killed, lost=1, broken=1, failed=1)) == (2 if spared else 0)
    assert len(missed(killed, failed=1, failed_late=1)) == 1


def test_an_outcome_is_a_row_for_each_path() -> None:
    tally = loads.Tally(
        open=1,
        answered=12_345,
        lost=0,
        broken=0,
        came=9,
        failed=0,
        failed_late=0,
        stall_ms=12.4,
        slowest_ms=3,
        errors={},
    )
    outcome = events.Outcome(events.EVENTS[0], 2.0, {"across nodes": tally, "same node": tally}, [])
    lines = report.table([outcome]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| the agent is killed | across nodes | 12,345 | 0 | 0 | 9 | 0 | 0 | 12 ms | 3 ms |"
    json.dumps(report.as_json([outcome]))


def test_an_agent_of_the_plane_is_told_where_it_is_and_reads_no_directory(tmp_path: pytest.TempPathFactory) -> None:
    given = ["agent", "--node", "n1", "--source", "/s", "--ca-dir", "/ca", "--run-dir", str(tmp_path), "--cgroup", "/c"]
    words = of_plane.arguments("1.2.3.4:5", "24", given)
    assert words[:3] == ["agent", "--node", "n1"]
    assert "--source" not in words
    assert words[words.index("--control") + 1] == "1.2.3.4:5"


def test_the_load_tells_of_a_server_that_dies() -> None:
    """Against a server in this process, which answers, then hangs up, then listens no more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [str(loads.build()), "dial", "127.0.0.1", str(listener.getsockname()[1]), "1", "0", "0"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as load:
            assert load.stdin is not None
            assert load.stdout is not None

            def tally() -> loads.Tally:
                load.stdin.write(b"\n")  # type: ignore[union-attr]
                return loads.Tally(**json.loads(load.stdout.readline()))  # type: ignore[union-attr]

            member, _ = listener.accept()
            for _ in range(3):
                member.sendall(member.recv(64))
            second = member.recv(64)  # the third was taken: it sent the next
            assert second.startswith(loads.SECRET.encode())
            good = tally()
            assert (good.open, good.answered, good.lost, good.broken, good.errors) == (1, 3, 0, 0, {})
            member.close()
            again, _ = listener.accept()
            bad = tally()
            assert (bad.open, bad.answered, bad.lost, bad.broken) == (0, 0, 1, 1)
            again.sendall(again.recv(64))
            again.recv(64)
            assert tally().stall_ms > 0
            again.close()
            load.stdin.close()
            assert loads.Tally(**json.loads(load.stdout.readline())).open == 0
