"""Where engines are found: a socket per worker in the run directory, named by when its engine started. Names only.

An engine's sockets have their names once all of them can be connected to, so one that refuses belongs to a dead engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import watchfiles

LOOK_AGAIN_MS = 1_000  # for what came before the watch began, which begins a moment after it is asked for
_FIRST = ".0.sock"


def engines(run_dir: Path) -> list[str]:
    """The names of all there are, dead ones included, the oldest first."""
    return sorted(path.name.removesuffix(_FIRST) for path in run_dir.glob(f"engine-*{_FIRST}"))


def path(run_dir: Path, engine: str, worker: int) -> Path:
    return run_dir / f"{engine}.{worker}.sock"


def remove(run_dir: Path, engine: str) -> None:
    """Of a dead one: it had no right any more to do it itself."""
    for door in run_dir.glob(f"{engine}.*"):
        door.unlink(missing_ok=True)


async def changes(run_dir: Path) -> AsyncGenerator[None, None]:
    """Whenever there may be others; the first time at once."""
    watch = watchfiles.awatch(run_dir, watch_filter=None, rust_timeout=LOOK_AGAIN_MS, yield_on_timeout=True)
    async with contextlib.aclosing(watch) as found:
        yield
        async for _ in found:
            yield
