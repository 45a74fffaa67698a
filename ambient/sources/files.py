"""Manifest files on disk: which count, what they hold, what their state is called. The only place that reads them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ambient.sources import documents as parser
from ambient.sources.documents import Document, Parsed
from ambient.sources.errors import BadManifest, Place, SourceError

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class File:
    """One file as it was last read. `stamp` tells a changed file from an unchanged one without reading it."""

    stamp: tuple[int, ...]  # empty: could not be read, to be tried again
    digest: int
    parsed: Parsed


def hidden(name: str) -> bool:
    """Written under such a name to be renamed, or a version control's. `..data` is how a ConfigMap is switched."""
    return any(part.startswith(".") and not part.startswith("..") for part in name.split("/"))


def counts(name: str) -> bool:
    return name.endswith(SUFFIXES) and not any(part.startswith(".") for part in name.split("/"))


def scan(root: Path, below: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names, relative to root, and stamps of the files that count."""
    with os.scandir(root / below) as entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    yield from scan(root, name)
            elif counts(name) and entry.is_file():
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    yield name, _stamp(entry.stat())


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read(root: Path, name: str) -> File | None:
    """The file parsed; None if it is gone."""
    try:
        with open(root / name, "rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            content = file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        return File(stamp=(), digest=digest(name, b""), parsed=Parsed(errors=(_unreadable(name, error),)))
    return File(stamp, digest(name, content), parser.parse(name, content))


@contextlib.contextmanager
def readable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError([_unreadable(str(root), error)]) from error


def _unreadable(name: str, error: OSError) -> BadManifest:
    at = f": {error.filename}" if error.filename and str(error.filename) != name else ""
    return Place(name).wrong("", "", "a readable file or directory", (error.strerror or str(error)) + at)


def documents(paths: Iterable[Path]) -> tuple[list[Document], list[BadManifest]]:
    """What is written in these files, and in those of these directories that count; and what could not be read.

    Files are called as the user called them. `-` is the standard input.
    """
    found: list[Document] = []
    errors: list[BadManifest] = []
    for path in paths:
        for name, content in _contents(path, errors):
            more, broken = parser.read(name, content)
            found += more
            errors += broken
    return found, errors


def _contents(path: Path, errors: list[BadManifest]) -> Iterator[tuple[str, bytes]]:
    try:
        if str(path) == "-":
            yield "standard input", sys.stdin.buffer.read()
        elif not path.is_dir():
            yield str(path), path.read_bytes()
        else:
            names = sorted(name for name, _ in scan(path))
            if not names:
                errors.append(
                    Place(str(path)).wrong("", "", "a *.yaml, *.yml or *.json file in this directory", "none")
                )
            for name in names:
                yield str(path / name), (path / name).read_bytes()
    except OSError as error:
        errors.append(_unreadable(str(path), error))


def digest(name: str, content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(name.encode() + b"\0" + content).digest(), "big")


def named(total: int) -> str:
    return f"{total % 2**256:064x}"[:32]
