"""What can go wrong at the kernel edge. Every text says what was tried, what was found, and what to do."""

from __future__ import annotations


class CaptureError(Exception):
    """The environment does not let us capture: a kernel feature, a permission, a path, or someone else's state."""


class LibbpfError(CaptureError):
    """libbpf or the kernel refused; `errno` is the kernel's, the text has what libbpf said about it."""

    def __init__(self, text: str, errno: int) -> None:
        super().__init__(text)
        self.errno = errno


class TableFullError(CaptureError):
    """A map has no room for one more entry."""
