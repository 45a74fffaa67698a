"""Files that others read at any moment: whole or not there at all, whoever is killed when."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_PREFIX, _SUFFIX = ".ambient-", ".tmp"  # no runtime takes such a name for a plugin or a configuration


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace the file by one rename; its content is on the disk before its name is. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    fd, temporary = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=path.parent)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what a killed writer left there."""
    for left in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        left.unlink(missing_ok=True)
