"""libbpf.so.1 itself: its functions' signatures, and how to call them: a failure is a LibbpfError with what it said.

Nothing is printed. Used by libbpf.py only, which knows what the functions are for.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from typing import Any

from ambient.capture.errors import CaptureError, LibbpfError

_said = threading.local()  # libbpf reports on the thread that called it
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_DEBUG = 2
_callbacks: list[object] = []  # libbpf keeps a pointer: never freed


@functools.cache
def library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise CaptureError(f"cannot load libbpf.so.1 ({error}): install the package libbpf1") from error
    vsnprintf = ctypes.CDLL(None).vsnprintf
    vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)

    def keep(level: int, form: bytes, args: int) -> int:
        if level < _DEBUG:
            text = ctypes.create_string_buffer(4096)
            vsnprintf(text, len(text), form, args)
            _said.__dict__.setdefault("lines", []).append(text.value.decode(errors="replace").strip())
        return 0

    callback = _PRINT(keep)
    _callbacks.append(callback)
    lib.libbpf_set_print.argtypes = (_PRINT,)
    lib.libbpf_set_print(callback)
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    for name, result, arguments in (
        ("bpf_object__open_mem", pointer, (text, size, pointer)),
        ("bpf_object__load", number, (pointer,)),
        ("bpf_object__close", None, (pointer,)),
        ("bpf_object__next_map", pointer, (pointer, pointer)),
        ("bpf_object__find_map_by_name", pointer, (pointer, text)),
        ("bpf_object__find_program_by_name", pointer, (pointer, text)),
        ("bpf_program__fd", number, (pointer,)),
        ("bpf_map__name", text, (pointer,)),
        ("bpf_map__fd", number, (pointer,)),
        ("bpf_map__is_internal", ctypes.c_bool, (pointer,)),
        ("bpf_map__key_size", ctypes.c_uint32, (pointer,)),
        ("bpf_map__value_size", ctypes.c_uint32, (pointer,)),
        ("bpf_map__max_entries", ctypes.c_uint32, (pointer,)),
        ("bpf_map__type", number, (pointer,)),
        ("bpf_map__reuse_fd", number, (pointer, number)),
        ("bpf_map__set_initial_value", number, (pointer, text, size)),
        ("bpf_map_lookup_elem", number, (number, pointer, pointer)),
        ("bpf_map_update_elem", number, (number, pointer, pointer, ctypes.c_uint64)),
        ("bpf_map_delete_elem", number, (number, pointer)),
        ("bpf_map_get_next_key", number, (number, pointer, pointer)),
        ("bpf_obj_pin", number, (number, text)),
        ("bpf_obj_get", number, (text,)),
        ("bpf_obj_get_info_by_fd", number, (number, pointer, pointer)),
        ("bpf_link_create", number, (number, number, number, pointer)),
        ("bpf_link_update", number, (number, number, pointer)),
        ("bpf_link_detach", number, (number,)),
        ("bpf_prog_get_fd_by_id", number, (ctypes.c_uint32,)),
        ("bpf_prog_query", number, (number, number, ctypes.c_uint32, pointer, pointer, pointer)),
        ("libbpf_num_possible_cpus", number, ()),
        ("bpf_map_lookup_batch", number, (number, pointer, pointer, pointer, pointer, pointer, pointer)),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def call(name: str, doing: str, *arguments: object) -> int:
    """Call what returns a number; a negative one raises, naming what was being done."""
    result: int = _invoke(name, *arguments)
    if result < 0:
        raise _failure(doing, ctypes.get_errno() or -result)
    return result


def find(name: str, doing: str, *arguments: object) -> int:
    """Call what returns a pointer; NULL raises."""
    pointer: int | None = _invoke(name, *arguments)
    if not pointer:
        raise _failure(doing, ctypes.get_errno())
    return pointer


def _invoke(name: str, *arguments: object) -> Any:
    function = getattr(library(), name)
    _said.__dict__["lines"] = []
    ctypes.set_errno(0)
    return function(*arguments)


def _failure(doing: str, errno: int) -> LibbpfError:
    said = "; ".join(line for line in _said.__dict__["lines"] if line)
    return LibbpfError(f"{doing}: {os.strerror(errno)}" + (f" ({said})" if said else ""), errno)
