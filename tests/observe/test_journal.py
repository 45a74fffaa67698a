"""The journal on real pipes and files: what the reader gets, and that nobody waits for the reader."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.observe.journal import Journal

F_SETPIPE_SZ = 1031


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):  # the test closed it already
            os.close(fd)


def a_line(record: dict[str, object]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def drain(reader: int) -> bytes:
    os.set_blocking(reader, False)
    found = b""
    while True:
        try:
            part = os.read(reader, 65536)
        except BlockingIOError:
            return found
        if not part:
            return found
        found += part


def test_a_record_is_there_at_once_where_no_loop_runs(pipe: tuple[int, int]) -> None:
    Journal(pipe[1]).write(b"one\n")
    assert drain(pipe[0]) == b"one\n"


def test_records_of_one_turn_leave_together_before_what_was_to_be_done_after_them(pipe: tuple[int, int]) -> None:
    async def run() -> tuple[bytes, bytes]:
        loop, journal, later = asyncio.get_running_loop(), Journal(pipe[1]), asyncio.Event()
        journal.write(b"one\n")
        loop.call_soon(later.set)
        journal.write(b"two\n")
        before = drain(pipe[0])
        await later.wait()
        return before, drain(pipe[0])

    assert asyncio.run(run()) == (b"", b"one\ntwo\n")


def test_a_file_takes_many_records_in_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: writes.append(len(data)) or write(fd, data))

    async def run(journal: Journal) -> None:
        for _ in range(40):
            journal.write(b"x" * 999 + b"\n")
        await asyncio.sleep(0)

    with (tmp_path / "log").open("wb") as stream:
        asyncio.run(run(Journal(stream)))
    assert writes == [40_000]


def test_a_stream_may_be_given_instead_of_a_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        Journal(stream).write(a_line({"a": 1}))
    assert (tmp_path / "log").read_text() == '{"a": 1}\n'


def test_a_stalled_reader_holds_nobody_up_and_gets_everything_later(pipe: tuple[int, int]) -> None:
    async def run() -> bytes:
        journal = Journal(pipe[1])
        for number in range(1000):
            journal.write(a_line({"number": number, "padding": "x" * 100}))
        found = b""
        async with asyncio.timeout(30):
            while found.count(b"\n") < 1000:
                found += drain(pipe[0])
                await asyncio.sleep(0)
        journal.close()
        return found

    lines = asyncio.run(run()).splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(1000))


def test_a_full_backlog_drops_counts_and_says_so_when_the_reader_is_back(pipe: tuple[int, int]) -> None:
    journal = Journal(pipe[1], backlog_max=2000)
    for number in range(200):
        journal.write(a_line({"number": number, "padding": "x" * 100}))
    found = b""
    while part := drain(pipe[0]):
        found += part
        journal.flush()
    lines = [json.loads(line) for line in found.splitlines()]
    kept = [line for line in lines if "number" in line]
    assert journal.dropped == 200 - len(kept) > 0
    assert [line["number"] for line in kept] == list(range(len(kept)))
    assert lines[-1] == {"type": "dropped", "records": journal.dropped}


def test_a_reader_that_is_gone_costs_its_records_and_nothing_else(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    journal = Journal(pipe[1])
    for _ in range(5):
        journal.write(a_line({"a": 1}))
    assert journal.dropped == 5


def test_a_full_disk_costs_its_records_and_nothing_else() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        journal = Journal(full)
        journal.write(a_line({"a": 1}))
    assert journal.dropped == 1


def test_a_line_longer_than_the_pipe_is_written_whole_in_the_end(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    journal = Journal(pipe[1])
    journal.write(a_line({"long": "x" * 20_000}))
    journal.write(a_line({"next": 1}))
    found = b""
    while part := drain(pipe[0]):
        found += part
        journal.flush()
    assert [len(line) for line in found.splitlines()] == [20_012, 11]


def test_close_counts_what_the_reader_did_not_take_in_time(pipe: tuple[int, int]) -> None:
    journal = Journal(pipe[1])
    for _ in range(100):
        journal.write(a_line({"padding": "x" * 100}))
    journal.close(deadline_s=0.01)
    assert journal.dropped == 100 - drain(pipe[0]).count(b"\n") > 0
