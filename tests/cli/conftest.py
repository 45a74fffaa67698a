"""A stand-in for an agent: a real admin socket whose handlers answer from a World."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ambient import config
from ambient.cli import main, sockets
from ambient.model.world import World
from ambient.observe import explain, views
from ambient.observe.admin import AdminServer, Handler

CERTIFICATE = {
    "identity": "spiffe://cluster.local/ns/shop/sa/web",
    "state": "valid",
    "not_after": "2026-01-02T00:00:00Z",
}
ENGINE = {"pid": 7, "state": "serving", "leaving": False, "started": "2026-01-01T00:00:00+00:00", "build": "1.0+abc"}


def handlers(world: World, node: str) -> dict[str, Handler]:
    """As the agent of `node` has them."""

    def state(key: str) -> str:
        return "captured" if world.workloads[key].node == node else ""

    async def answer(rows: object) -> object:
        return rows

    return {
        "workloads": lambda _: answer(views.workloads(world, state)),
        "services": lambda _: answer(views.services(world)),
        "policies": lambda _: answer(views.policies(world)),
        "certificates": lambda _: answer([CERTIFICATE]),
        "engines": lambda _: answer([ENGINE]),
        "connections": lambda _: answer([]),
        "explain": lambda asked: asyncio.to_thread(explain.explain, world, asked["from"], asked["to"]),
    }


@contextmanager
def agents(sockets_of: dict[Path, dict[str, Handler]]) -> Iterator[None]:
    """Admin sockets served in a thread of their own, as the CLI blocks."""
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def serve(stop: asyncio.Event) -> None:
        servers = []
        for path, verbs in sockets_of.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            servers.append(AdminServer(path, verbs))
        for server in servers:
            await server.start()
        started.set()
        await stop.wait()
        for server in servers:
            await server.close()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop),))
    thread.start()
    try:
        assert started.wait(30)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def abandon(path: Path) -> None:
    """A socket as a killed agent leaves it."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sockets are looked for below tmp_path: lab/NAME/nodes/NODE/run/admin.sock and admin.sock."""
    monkeypatch.setattr(config, "LABS", tmp_path / "lab")
    monkeypatch.delenv("AMBIENT_LAB", raising=False)
    monkeypatch.setattr(sockets, "NODE_SOCKET", tmp_path / "admin.sock")
    return tmp_path


@pytest.fixture
def run() -> Callable[..., Result]:
    def invoke(*args: Any) -> Result:
        return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)

    return invoke
