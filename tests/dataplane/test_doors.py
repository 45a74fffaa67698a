"""Which engines there are, by the sockets in a run directory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from ambient.dataplane import doors


def test_engines_are_listed_once_each_the_oldest_first_and_others_files_are_no_engines(tmp_path: Path) -> None:
    for name in ("engine-0b.1.sock", "engine-0b.0.sock", "engine-0a.0.sock", "admin.sock", "engine-0c.0.new"):
        (tmp_path / name).touch()
    assert doors.engines(tmp_path) == ["engine-0a", "engine-0b"]


def test_only_the_dead_engines_sockets_are_removed(tmp_path: Path) -> None:
    for name in ("engine-0a.0.sock", "engine-0a.1.sock", "engine-0ab.0.sock", "admin.sock"):
        (tmp_path / name).touch()
    doors.remove(tmp_path, "engine-0a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["admin.sock", "engine-0ab.0.sock"]


def test_a_new_engine_is_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), contextlib.aclosing(doors.changes(tmp_path)) as changes:
            await anext(changes)
            doors.path(tmp_path, "engine-0a", 0).touch()
            async for _ in changes:
                if doors.engines(tmp_path):
                    break

    asyncio.run(main())
