"""A real BPF hash map through the bare bpf(2): what the capture programs read, and the engine writes."""

from __future__ import annotations

import ctypes
import os
import platform

from ambient.dataplane import abi

_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_CREATE, _NEXT_KEY, _LOOKUP = 0, 4, 1
_HASH = 1
_libc = ctypes.CDLL(None, use_errno=True)


class ClientsMap:
    """`clients` as bpf/ makes it, but for its size; close() it."""

    def __init__(self, entries: int = 1024) -> None:
        sizes = ctypes.sizeof(abi.ClientKey), ctypes.sizeof(abi.ClientValue)
        attributes = (ctypes.c_uint32 * 32)(_HASH, *sizes, entries)
        self.fd = _bpf(_CREATE, attributes, ctypes.sizeof(attributes))

    def entries(self) -> list[tuple[abi.ClientKey, abi.ClientValue]]:
        """All there is; nothing may change meanwhile."""
        found = []
        key: abi.ClientKey | None = None
        while True:
            following = abi.ClientKey()
            try:
                self._on_keys(_NEXT_KEY, key, following)
            except FileNotFoundError:
                return found
            key = following
            value = abi.ClientValue()
            self._on_keys(_LOOKUP, key, value)
            found.append((key, value))

    def is_empty(self) -> bool:
        """May be asked at any time."""
        try:
            self._on_keys(_NEXT_KEY, None, abi.ClientKey())
        except FileNotFoundError:
            return True
        return False

    def _on_keys(self, command: int, key: abi.ClientKey | None, out: abi.Struct) -> None:
        attributes = (ctypes.c_uint64 * 4)(
            self.fd, 0 if key is None else ctypes.addressof(key), ctypes.addressof(out), 0
        )
        _bpf(command, attributes, ctypes.sizeof(attributes))

    def close(self) -> None:
        os.close(self.fd)


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_uint32] | ctypes.Array[ctypes.c_uint64], size: int) -> int:
    result = _libc.syscall(_BPF, command, ctypes.byref(attributes), size)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf({command}): {os.strerror(error)}")
    return int(result)
