"""Long tasks of the daemon: named, and never lost. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


def guarded(job: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task whose failure (a bug: what can be foreseen it handles itself) ends the daemon, visibly."""
    loop = asyncio.get_running_loop()

    def over(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("%s failed", name, exc_info=task.exception())
            loop.stop()

    task = loop.create_task(job, name=name)
    task.add_done_callback(over)
    return task
