"""The composition root of a lab's daemon process: serves the socket it was given, runs."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path

from ambient import config
from ambient.lab import rpc
from ambient.lab.daemon import Daemon
from ambient.lab.layout import Layout
from ambient.lab.state import State


def run(options: str) -> None:
    """`options`: the JSON that client.Lab wrote. Returns never; a task that fails ends the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    given = json.loads(options)
    layout = Layout(given["name"], config.cgroup2_root(), Path(given["base"]))
    agents = tuple(given["agents"]) if given["agents"] else None
    asyncio.run(_serve(Daemon(layout, State.load(layout.state_file), agents), socket.socket(fileno=given["listener"])))


async def _serve(daemon: Daemon, listener: socket.socket) -> None:
    await daemon.prepare()
    async with await rpc.serve(listener, daemon.handlers()):
        await daemon.run()
