"""What libbpf has as far as capture needs it: objects, maps, links, pins.

Everything here owns its file descriptor and is closed explicitly. A failure is a LibbpfError that carries what libbpf
said; nothing is printed. No policy here: what is loaded where is decided by the callers.
"""

from __future__ import annotations

import ctypes
import errno as errno_names
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ambient.capture import library
from ambient.capture.errors import CaptureError, LibbpfError

SOCK_OPS, CONNECT4, CONNECT6, SETSOCKOPT = 3, 10, 11, 22  # enum bpf_attach_type
GETPEERNAME4, GETPEERNAME6, SK_LOOKUP = 29, 30, 36
_PERCPU_ARRAY = 6  # enum bpf_map_type
_MOST_MAPS = 64  # of one program: the verifier's limit
_NETNS_LINK = 5  # enum bpf_link_type


class _OpenOpts(ctypes.Structure):
    """struct bpf_object_open_opts as far as we set it: `size` tells libbpf where we end."""

    _fields_ = (("size", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


class _LinkInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
        ("target", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 40),
    )


class _ProgInfo(ctypes.Structure):
    """struct bpf_prog_info up to the name; the kernel fills what fits."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("lengths_and_pointers", ctypes.c_uint8 * 36),
        ("maps", ctypes.c_uint32),
        ("map_ids", ctypes.c_void_p),
        ("name", ctypes.c_char * 16),
    )


class _Owned:
    """A file descriptor of the kernel's BPF, closed by close() or at the end of a with block."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pin(self, path: Path) -> None:
        library.call("bpf_obj_pin", f"pinning {path}", self.fd, os.fsencode(path))

    @classmethod
    def pinned(cls, path: Path) -> Self | None:
        """What is pinned there, or None."""
        try:
            return cls(library.call("bpf_obj_get", f"opening the pin {path}", os.fsencode(path)))
        except LibbpfError as error:
            if error.errno == errno_names.ENOENT:
                return None
            raise


class Program(_Owned):
    @classmethod
    def by_id(cls, number: int) -> Program:
        return cls(library.call("bpf_prog_get_fd_by_id", f"opening BPF program {number}", number))

    def name(self) -> str:
        info = _ProgInfo()
        _info(self.fd, info, "BPF program")
        return bytes(info.name).decode(errors="replace")

    def maps(self) -> set[int]:
        """Ids of the maps that it uses."""
        ids = (ctypes.c_uint32 * _MOST_MAPS)()
        info = _ProgInfo(maps=_MOST_MAPS, map_ids=ctypes.addressof(ids))
        _info(self.fd, info, "BPF program")
        return set(ids[: info.maps])


@dataclass(frozen=True, slots=True)
class LinkState:
    """target 0: no longer attached (detached by force, or the cgroup or the network namespace is gone)."""

    program: int
    target: int  # cgroup id, or the network namespace's inode (lower 32 bits)


class Link(_Owned):
    """A program attached somewhere. It stays attached while a pin or a descriptor of it exists."""

    @classmethod
    def create(cls, program: Program, target_fd: int, attach_type: int, where: str) -> Link:
        return cls(library.call("bpf_link_create", f"attaching to {where}", program.fd, target_fd, attach_type, None))

    def update(self, program: Program) -> None:
        """Exchange the program; no packet sees a gap."""
        library.call("bpf_link_update", "exchanging an attached program", self.fd, program.fd, None)

    def detach(self) -> None:
        """Take the program off at once, whoever else holds the link."""
        library.call("bpf_link_detach", "detaching", self.fd)

    def state(self) -> LinkState:
        info = _LinkInfo()
        _info(self.fd, info, "BPF link")
        # A cgroup's id has 64 bits; a namespace's inode has 32, with the attach type behind it.
        return LinkState(info.prog_id, info.target & 0xFFFFFFFF if info.type == _NETNS_LINK else info.target)


class Map(_Owned):
    """A map's file descriptor with its key's and value's size; keys and values are bytes-like."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        info = _MapInfo()
        _info(fd, info, "BPF map")
        self.name: str = info.name.decode()
        self.id: int = info.id
        self.shape: tuple[int, int, int, int] = (info.type, info.key_size, info.value_size, info.max_entries)
        self._key_size: int = info.key_size
        self._value_size: int = info.value_size
        self._cpus = library.call("libbpf_num_possible_cpus", "counting CPUs") if info.type == _PERCPU_ARRAY else 1

    def get(self, key: bytes) -> bytes | None:
        """The value (of a per-CPU map: all CPUs' values in a row), or None."""
        value = ctypes.create_string_buffer(self._value_size * self._cpus)
        try:
            library.call("bpf_map_lookup_elem", f"reading map {self.name}", self.fd, self._key(key), value)
        except LibbpfError as error:
            if error.errno == errno_names.ENOENT:
                return None
            raise
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        if len(value) != self._value_size:
            raise ValueError(f"map {self.name} has values of {self._value_size} bytes, not {len(value)}")
        library.call("bpf_map_update_elem", f"writing map {self.name}", self.fd, self._key(key), value, 0)

    def delete(self, key: bytes) -> bool:
        """False: it was not there."""
        try:
            library.call("bpf_map_delete_elem", f"deleting from map {self.name}", self.fd, self._key(key))
        except LibbpfError as error:
            if error.errno in (errno_names.ENOENT, errno_names.EINVAL):  # EINVAL: what a SOCKHASH says
                return False
            raise
        return True

    def __iter__(self) -> Iterator[bytes]:
        """The keys, as they were at this moment: deleting meanwhile is safe."""
        return iter(list(self._walk()))

    def _walk(self) -> Iterator[bytes]:
        key, following = None, ctypes.create_string_buffer(self._key_size)
        while True:
            try:
                library.call("bpf_map_get_next_key", f"listing map {self.name}", self.fd, key, following)
            except LibbpfError as error:
                if error.errno == errno_names.ENOENT:
                    return
                raise
            key = bytes(following.raw)
            yield key

    def items(self, batch: int = 1024) -> Iterator[tuple[bytes, bytes]]:
        """Every entry of a hash, some thousand in one call; what comes and goes meanwhile may be missing or twice.

        `batch` must be more than any one bucket has.
        """
        keys = ctypes.create_string_buffer(self._key_size * batch)
        values = ctypes.create_string_buffer(self._value_size * batch)
        place, following = None, ctypes.c_uint64()
        while True:
            count = ctypes.c_uint32(batch)
            last = False
            try:
                library.call(
                    "bpf_map_lookup_batch",
                    f"listing map {self.name}",
                    *(self.fd, place, ctypes.byref(following), keys, values, ctypes.byref(count), None),
                )
            except LibbpfError as error:
                if error.errno != errno_names.ENOENT:
                    raise
                last = True  # and what it found on the way to the end is there
            all_keys, all_values = keys.raw, values.raw  # each .raw is a copy of the whole
            for at in range(count.value):
                yield (
                    all_keys[at * self._key_size : (at + 1) * self._key_size],
                    all_values[at * self._value_size : (at + 1) * self._value_size],
                )
            if last:
                return
            place = ctypes.byref(following)

    def _key(self, key: bytes) -> bytes:
        key = bytes(key)
        if len(key) != self._key_size:
            raise ValueError(f"map {self.name} has keys of {self._key_size} bytes, not {len(key)}")
        return key


class Object:
    """An ELF file of BPF programs, opened; loaded once its maps are exchanged and its constants are set."""

    def __init__(self, elf: bytes, name: str) -> None:
        options = _OpenOpts(ctypes.sizeof(_OpenOpts), name.encode())
        self._name = name
        self._elf = elf  # libbpf reads from it until load
        self._pointer = library.find(
            "bpf_object__open_mem", f"opening {name}.bpf.o", elf, len(elf), ctypes.byref(options)
        )

    def __enter__(self) -> Object:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        library.library().bpf_object__close(self._pointer)

    def reuse(self, maps: dict[str, Map]) -> None:
        """Use these instead of new ones. One of another shape is an error: programs would misread it."""
        lib = library.library()
        for pointer in self._maps():
            name = lib.bpf_map__name(pointer).decode()
            if name not in maps:
                continue
            declared = (
                lib.bpf_map__type(pointer),
                lib.bpf_map__key_size(pointer),
                lib.bpf_map__value_size(pointer),
                lib.bpf_map__max_entries(pointer),
            )
            if declared != maps[name].shape:
                raise CaptureError(
                    f"the pinned map {name} has (type, key, value, entries) {maps[name].shape}, and {self._name}.bpf.o"
                    f" wants {declared}: it was left by an incompatible version; stop that agent and run its uninstall"
                )
            library.call("bpf_map__reuse_fd", f"reusing map {name}", pointer, maps[name].fd)

    def set_constants(self, rodata: bytes) -> None:
        pointer = library.find(
            "bpf_object__find_map_by_name", f"finding .rodata of {self._name}", self._pointer, b".rodata"
        )
        library.call("bpf_map__set_initial_value", f"setting constants of {self._name}", pointer, rodata, len(rodata))

    def load(self) -> None:
        library.call("bpf_object__load", f"loading {self._name}.bpf.o into the kernel", self._pointer)

    def maps(self) -> dict[str, Map]:
        """The loaded, named maps, each with a descriptor of its own."""
        lib = library.library()
        return {
            lib.bpf_map__name(pointer).decode(): Map(os.dup(lib.bpf_map__fd(pointer)))
            for pointer in self._maps()
            if not lib.bpf_map__is_internal(pointer)
        }

    def program(self, name: str) -> Program:
        """The loaded program, with a descriptor of its own."""
        pointer = library.find(
            "bpf_object__find_program_by_name", f"finding {name} in {self._name}", self._pointer, name.encode()
        )
        return Program(os.dup(library.library().bpf_program__fd(pointer)))

    def _maps(self) -> Iterator[int]:
        pointer = None
        while pointer := library.library().bpf_object__next_map(self._pointer, pointer):
            yield pointer


def version() -> str:
    return f"libbpf {library.library().libbpf_major_version()}.{library.library().libbpf_minor_version()}"


def attached(cgroup_fd: int, attach_type: int) -> list[int]:
    """Ids of the programs that run for this cgroup, inherited ones included."""
    effective, most = 1, 64  # BPF_F_QUERY_EFFECTIVE; the kernel's own limit per cgroup
    ids, count, flags = (ctypes.c_uint32 * most)(), ctypes.c_uint32(most), ctypes.c_uint32()
    library.call(
        "bpf_prog_query",
        "listing a cgroup's programs",
        *(cgroup_fd, attach_type, effective, ctypes.byref(flags), ids, ctypes.byref(count)),
    )
    return list(ids[: count.value])


def _info(fd: int, info: ctypes.Structure, what: str) -> None:
    size = ctypes.c_uint32(ctypes.sizeof(info))
    library.call("bpf_obj_get_info_by_fd", f"asking about a {what}", fd, ctypes.byref(info), ctypes.byref(size))


def filesystem_type(path: Path) -> int:
    """statfs(2)'s f_type, which the os module does not tell."""
    buffer = (ctypes.c_long * 32)()  # struct statfs begins with it
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), buffer):
        number = ctypes.get_errno()
        raise CaptureError(f"cannot look at {path}: {os.strerror(number)}")
    return buffer[0]
