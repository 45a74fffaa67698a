"""The plugin's parts built for tests: the JSON scanner as a library, and a plugin whose seconds are short."""

from __future__ import annotations

import ctypes
import functools
import subprocess
from pathlib import Path

from tests.cni.runtime import BINARY

SOURCE = Path(__file__).parent.parent.parent / "cni"
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror")
SHORT_SECOND = 40  # ms


class Text(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("len", ctypes.c_size_t))


@functools.cache
def _library(folder: Path) -> ctypes.CDLL:
    built = folder / "json.so"
    subprocess.run(["cc", *FLAGS, "-shared", "-fPIC", SOURCE / "json.c", "-o", built], check=True)
    library = ctypes.CDLL(str(built))
    library.json_member.restype = ctypes.c_bool
    library.json_member.argtypes = (Text, ctypes.c_char_p, ctypes.POINTER(Text))
    library.json_plain.restype = Text
    library.json_plain.argtypes = (Text,)
    return library


class Scanner:
    def __init__(self, folder: Path) -> None:
        self._library = _library(folder)

    def member(self, document: bytes, name: str) -> tuple[bool, bytes | None]:
        """Whether it is a document, and the value's text; None: no such member."""
        held = ctypes.create_string_buffer(document, len(document) or 1)
        found = Text()
        good = self._library.json_member(
            Text(ctypes.addressof(held), len(document)), name.encode(), ctypes.byref(found)
        )
        return good, ctypes.string_at(found.at, found.len) if good and found.at else None

    def plain(self, value: bytes) -> bytes:
        held = ctypes.create_string_buffer(value, len(value) or 1)
        found = self._library.json_plain(Text(ctypes.addressof(held), len(value)))
        return ctypes.string_at(found.at, found.len)


def impatient(folder: Path) -> Path:
    """The plugin with short seconds; with sanitizers where the one under test has them."""
    built = folder / "ambient-cni"
    sanitized = b"__asan_init" in BINARY.read_bytes()
    compiler = ["clang", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if sanitized else ["cc"]
    subprocess.run(
        [*compiler, *FLAGS, f"-DSECOND={SHORT_SECOND}", *sorted(SOURCE.glob("*.c")), "-o", built], check=True
    )
    return built
