"""A directory of Kubernetes manifests as a source: read it, name its state (revision), follow it.

Every *.yaml, *.yml and *.json below it counts, except below or as a name that starts with a dot, so that a file can be
written under such a name and renamed. Only reads. A state with an error never becomes a World.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import watchfiles

from ambient.model.mesh import MeshConfig
from ambient.model.world import World
from ambient.sources import files, review
from ambient.sources.documents import Found, twice
from ambient.sources.errors import BadManifest, Place, SourceError
from ambient.sources.inventory import Inventory
from ambient.sources.manifests import Ref

__all__ = ["BadManifest", "Directory", "SourceError", "load", "revision", "watch"]

DEBOUNCE_MS = 50  # a burst of writes (a checkout, a lab's apply) is taken in one go
STEP_MS = 20  # silence that ends a burst
RESCAN_MS = 30_000  # everything is looked at this often, should an event have been lost
RETRY_S = 1.0  # how often a directory that is not there is looked for: nothing reports its coming


def load(path: str | os.PathLike[str], mesh: MeshConfig) -> World:
    """The World that a directory describes. Raises SourceError: every reason why it describes none."""
    return Directory.at(path, mesh).refresh()


def revision(path: str | os.PathLike[str]) -> str:
    """A digest of the names and contents of the directory's files. Raises SourceError when it cannot be read."""
    root = Path(path)
    with files.readable(root):
        return files.named(sum(files.digest(name, (root / name).read_bytes()) for name, _ in files.scan(root)))


async def watch(path: str | os.PathLike[str], mesh: MeshConfig) -> AsyncGenerator[World | SourceError, None]:
    """The directory's World, then the next one at each change; a SourceError for a state that is none.

    The first item tells what is there now. States that follow each other are different. Never ends by itself.
    """
    directory = Directory.at(path, mesh)
    last: World | SourceError | None = None
    while True:
        async with contextlib.aclosing(_attempts(directory)) as attempts:
            async for item in attempts:
                if not _same(last, item):
                    last = item
                    yield item
        await asyncio.sleep(RETRY_S)


def _same(last: World | SourceError | None, item: World | SourceError) -> bool:
    if isinstance(item, SourceError):
        return isinstance(last, SourceError) and (last.errors, last.revision) == (item.errors, item.revision)
    return isinstance(last, World) and last.revision == item.revision


async def _attempts(directory: Directory) -> AsyncGenerator[World | SourceError, None]:
    """One for what is there and one for each burst of changes, until the directory itself is not there (any more)."""
    if not directory.root.is_dir():
        yield await directory.attempt()
        return
    stop = asyncio.Event()
    bursts = watchfiles.awatch(
        directory.root,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        stop_event=stop,
        rust_timeout=RESCAN_MS,
        yield_on_timeout=True,
    )
    first = asyncio.ensure_future(anext(bursts))
    try:
        # The watch begins as soon as the first burst is asked for. Only then read, or a change in between were lost.
        await asyncio.sleep(0)
        if first.done() and (problem := first.exception()):
            yield SourceError(
                [Place(str(directory.root)).wrong("", "", "a directory that can be watched", str(problem))]
            )
            return
        yield await directory.attempt()
        burst = await first
        while directory.root.is_dir():
            yield await directory.attempt([Path(name) for _, name in burst])
            burst = await anext(bursts)
        yield await directory.attempt()
    finally:
        stop.set()
        if not first.done():
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
        await bursts.aclose()


@dataclass(slots=True)
class Directory:
    """What was read so far. A refresh reads what changed; only a state without errors becomes the next World.

    Not for use by two threads at a time.
    """

    root: Path  # absolute
    mesh: MeshConfig
    _files: dict[str, files.File] = field(default_factory=dict)
    _complete: bool = False  # everything was looked at; changes are enough from here on
    _revision: int = 0  # sum of the files' digests: costs nothing to keep
    _errors: dict[str, tuple[BadManifest, ...]] = field(default_factory=dict)  # by file
    _definitions: dict[Ref, dict[str, Found]] = field(default_factory=dict)  # by file
    _twice: set[Ref] = field(default_factory=set)
    _pending: set[Ref] = field(default_factory=set)  # not as in the last good World
    _inventory: Inventory | None = None  # with the last good World

    @classmethod
    def at(cls, path: str | os.PathLike[str], mesh: MeshConfig) -> Directory:
        return cls(Path(path).absolute(), mesh)

    async def attempt(self, changed: Iterable[Path] = ()) -> World | SourceError:
        """refresh() off the event loop, its error as a value."""
        try:
            return await asyncio.to_thread(self.refresh, changed)
        except SourceError as error:
            return error

    @property
    def notes(self) -> tuple[str, ...]:
        """Which manifests are of no concern to the mesh."""
        return tuple(str(note) for name in sorted(self._files) for note in self._files[name].parsed.notes)

    def refresh(self, changed: Iterable[Path] = ()) -> World:
        """Read what changed and make the next World. Raises SourceError if there is none; the next refresh goes on.

        changed: absolute paths known to have changed; with none, everything is looked at.
        """
        for name in self._suspects(list(changed)):
            self._reread(name)
        revision = files.named(self._revision)
        if self._errors or self._twice:
            clashes = [self._clash(ref) for ref in self._twice]
            raise SourceError([*clashes, *itertools.chain.from_iterable(self._errors.values())], revision)
        now = {ref: self._defined(ref) for ref in self._pending}
        inventory = (self._inventory or Inventory(World(mesh=self.mesh))).apply(
            [(ref, found.object) for ref, found in now.items() if found is not None],
            [ref for ref, found in now.items() if found is None],
            revision=revision,
        )
        if errors := review.contradictions(inventory.world, self._defined):
            raise SourceError(errors, revision)
        self._inventory, self._pending = inventory, set()
        return inventory.world

    def _defined(self, ref: Ref) -> Found | None:
        return next(iter(self._definitions.get(ref, {}).values()), None)

    def _suspects(self, changed: list[Path]) -> list[str]:
        """Names to read again: those that changed, if that can be told, else all whose stamp is another."""
        names = {path.relative_to(self.root).as_posix() for path in changed if path.is_relative_to(self.root)}
        ours = {name for name in names if files.counts(name)}
        # what is neither a manifest nor hidden may be a directory that came, went or was renamed
        if self._complete and changed and all(name in ours or files.hidden(name) for name in names):
            return sorted(ours)
        self._complete = False
        with files.readable(self.root):
            there = dict(files.scan(self.root))
        self._complete = True
        stale = {name for name, stamp in there.items() if name not in self._files or self._files[name].stamp != stamp}
        return sorted(stale | ours | (self._files.keys() - there.keys()))

    def _reread(self, name: str) -> None:
        """Replace what is known of one file."""
        if old := self._files.pop(name, None):
            self._revision -= old.digest
            self._errors.pop(name, None)
            for found in old.parsed.objects:
                self._define(found.ref, name, None)
        new = files.read(self.root, name)
        if new is None:
            return
        self._files[name] = new
        self._revision += new.digest
        if new.parsed.errors:
            self._errors[name] = new.parsed.errors
        for found in new.parsed.objects:
            self._define(found.ref, name, found)

    def _define(self, ref: Ref, name: str, found: Found | None) -> None:
        self._pending.add(ref)
        definitions = self._definitions.setdefault(ref, {})
        if found is None:
            definitions.pop(name, None)
        else:
            definitions[name] = found
        (self._twice.add if len(definitions) > 1 else self._twice.discard)(ref)
        if not definitions:
            del self._definitions[ref]

    def _clash(self, ref: Ref) -> BadManifest:
        first, *others = (self._definitions[ref][name].place for name in sorted(self._definitions[ref]))
        return twice(str(ref), first, *others)
