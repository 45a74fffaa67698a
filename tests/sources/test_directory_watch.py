"""A directory of manifests, followed: what is there, then every change, and errors on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from ambient.model.world import World, diff
from ambient.sources import directory
from ambient.sources.directory import Directory, SourceError

from .written import CONFIG, POLICY, node, pod

PATIENCE_S = 10  # far beyond what a change takes to be seen


def eventually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE_S * 3))

    return run


async def following(items: AsyncGenerator[World | SourceError, None]) -> Any:
    return await asyncio.wait_for(anext(items), PATIENCE_S)


async def until(items: AsyncGenerator[World | SourceError, None], holds: Callable[[Any], bool]) -> Any:
    """The first item that holds: a burst of writes may be seen as more than one state."""
    while not holds(item := await following(items)):
        pass
    return item


@eventually
async def test_watch_tells_what_is_there_and_then_every_change(place: Path) -> None:
    items = directory.watch(place, CONFIG)
    first = await following(items)
    assert isinstance(first, World)
    (place / "policy.yaml").write_text(POLICY)
    second = await until(items, lambda item: item.revision == directory.revision(place))
    assert diff(first, second).touched() == {"policy:shop"}
    (place / "policy.yaml").unlink()
    third = await following(items)
    assert not third.policies
    assert third.revision == first.revision
    await items.aclose()


@eventually
async def test_watch_tells_errors_and_goes_on(place: Path) -> None:
    items = directory.watch(place, CONFIG)
    await following(items)
    (place / "bad.yaml").write_text("{")
    error = await until(items, lambda item: isinstance(item, SourceError))
    assert error.errors[0].startswith("bad.yaml")
    (place / "bad.yaml").unlink()
    assert isinstance(await following(items), World)
    await items.aclose()


@eventually
async def test_watch_sees_files_written_aside_and_renamed_and_directories_that_come_and_go(place: Path) -> None:
    items = directory.watch(place, CONFIG)
    await following(items)
    (place / ".policy.tmp").write_text(POLICY)
    (place / ".policy.tmp").rename(place / "policy.yaml")
    assert (await following(items)).policies
    aside = place.parent / (place.name + "-aside")
    aside.mkdir()
    (aside / "db.yaml").write_text(pod("db", "10.1.0.9"))
    aside.rename(place / "more")
    assert "shop/db" in (await following(items)).workloads
    (place / "more").rename(aside)
    assert "shop/db" not in (await following(items)).workloads
    await items.aclose()


@eventually
async def test_watch_waits_for_a_directory_that_is_not_there_and_for_one_that_went(tmp_path: Path) -> None:
    place = tmp_path / "cluster"
    items = directory.watch(place, CONFIG)
    assert isinstance(await following(items), SourceError)
    place.mkdir()
    assert not (await until(items, lambda item: isinstance(item, World))).nodes
    (place / "node.yaml").write_text(node())
    assert (await following(items)).nodes
    place.rename(tmp_path / "elsewhere")
    assert isinstance(await until(items, lambda item: isinstance(item, SourceError)), SourceError)
    (tmp_path / "elsewhere").rename(place)
    assert (await until(items, lambda item: isinstance(item, World))).nodes
    await items.aclose()


@eventually
async def test_a_change_during_the_first_reading_is_not_lost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reread = Directory.refresh

    def slow(self: Directory, changed: Any = ()) -> World:
        try:
            return reread(self, changed)
        finally:
            (place / "policy.yaml").write_text(POLICY)
            monkeypatch.undo()

    monkeypatch.setattr(Directory, "refresh", slow)
    items = directory.watch(place, CONFIG)
    assert not (await following(items)).policies
    assert (await following(items)).policies
    await items.aclose()


@eventually
async def test_closing_a_watch_ends_it_at_once(place: Path) -> None:
    items = directory.watch(place, CONFIG)
    await following(items)
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 2)
    await items.aclose()
