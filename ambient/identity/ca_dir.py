"""The CA's directory: one secret file, one public one, one lock. Files only; what the contents mean is roots.py's.

    ca.json     0600  roots, who signs, the signing keys: replaced whole, so no step of a rotation is ever half done
    bundle.pem  0644  the trusted roots, for people and other tools; derived from ca.json and never read here
    lock        0600  flock()ed by whoever writes; it dies with its holder

A secret that others could read, or a directory others could write, is refused and never repaired: it is no secret now.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ambient.identity import ca_state
from ambient.identity.ca_state import CaUnusable
from ambient.identity.roots import Authority

__all__ = ["CaUnusable", "load", "locked", "publish", "save"]

STATE = "ca.json"
BUNDLE = "bundle.pem"
LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the directory if need be and hold its lock; writers wait, across processes. Raises CaUnusable."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(folder, os.stat(folder), forbidden=0o022, remedy="chmod go-w")
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CaUnusable(f"cannot use {folder} as CA directory: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def load(folder: Path) -> Authority | None:
    """The CA kept in `folder`, or None if none was ever made there. Raises CaUnusable."""
    path = folder / STATE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CaUnusable(f"cannot read {path}: {error}") from error
    with open(descriptor, "rb") as file:
        _check(
            path,
            os.fstat(file.fileno()),
            forbidden=0o077,
            remedy="rotate the root if others may have read it, then chmod 600",
        )
        content = file.read()
    try:
        return ca_state.decode(content)
    except ValueError as error:
        raise CaUnusable(
            f"{path} is not a CA's state ({error}): restore it from a backup, or remove it to found a new CA that "
            "nobody trusts yet"
        ) from error


def save(folder: Path, authority: Authority) -> None:
    """Replace the state, then the bundle. Only under locked(). Raises CaUnusable."""
    try:
        _replace(folder / STATE, ca_state.encode(authority), 0o600)
        publish(folder, authority)
    except OSError as error:
        raise CaUnusable(f"cannot write the CA's state to {folder}: {error}") from error


def publish(folder: Path, authority: Authority) -> None:
    """Make bundle.pem say what the state says; a crash between the two leaves the old one. Only under locked()."""
    path = folder / BUNDLE
    if not path.is_file() or path.read_bytes() != authority.bundle_pem:
        _replace(path, authority.bundle_pem, 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write all of it or nothing, durably. The mode is right from the first moment and whatever the umask is."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # left by a writer that was killed: we hold the lock, so it is nobody's
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _check(path: Path, found: os.stat_result, *, forbidden: int, remedy: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        raise CaUnusable(f"{path} has mode {mode:04o}, which lets others at the CA's key: {remedy} {path}")
    if found.st_uid not in (0, os.geteuid()):
        raise CaUnusable(f"{path} belongs to user {found.st_uid}, who could replace the CA: chown it to {os.geteuid()}")
