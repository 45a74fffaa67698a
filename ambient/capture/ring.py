"""A BPF ring buffer, read through libbpf: what the kernel wrote, oldest first, each record once.

What nobody reads stays, for whoever opens the pinned map next. One reader at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from ambient.capture import library
from ambient.capture.errors import LibbpfError

_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_GO_ON, _STOP = 0, -125  # ECANCELED


class Ring:
    def __init__(self, map_fd: int) -> None:
        self._callback = _SAMPLE(self._sample)  # libbpf keeps a pointer
        self._take: Callable[[bytes], None] | None = None
        self._left = 0
        self._failure: BaseException | None = None
        self._pointer: int | None = library.find(
            "ring_buffer__new", "mapping a ring buffer", map_fd, self._callback, None, None
        )

    def fileno(self) -> int:
        """Readable, for poll and asyncio, while there is something to read."""
        return library.call("ring_buffer__epoll_fd", "asking for a ring buffer's descriptor", self._pointer)

    def read(self, take: Callable[[bytes], None], limit: int) -> int:
        """Give the next records to `take`, `limit` at most; how many. One leaves the ring after `take` has returned.

        What `take` raises comes out of here, and its record is gone.
        """
        self._take, self._left, self._failure = take, limit, None
        try:
            library.call("ring_buffer__consume", "reading a ring buffer", self._pointer)
        except LibbpfError as error:
            if error.errno != -_STOP:
                raise
        if self._failure:
            raise self._failure
        return limit - self._left

    def close(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer:
            library.library().ring_buffer__free(pointer)

    def _sample(self, context: int, data: int, size: int) -> int:
        del context
        try:
            assert self._take
            self._take(ctypes.string_at(data, size))
        except BaseException as error:  # noqa: BLE001 - C is above us: it comes out of read()
            self._failure = error
            return _STOP
        self._left -= 1
        return _GO_ON if self._left else _STOP
