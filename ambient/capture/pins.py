"""What stays in the kernel while no agent runs: maps, programs and links, pinned under <bpffs>/ambient-v<ABI>/.

    maps/NAME        every map of bpf/maps.h
    links/HOOK       connect4, connect6, getpeername4, getpeername6, attached to the node's cgroup
    lookup/COOKIE    the sk_lookup program of one enrolled network namespace

Opening is a transaction: either everything is loaded, attached and pinned, or what was there before is there again.
Knows programs and pins; which pods there are, and what is in the maps, is not its business.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import time
from importlib import resources
from pathlib import Path

from ambient.capture import abi, cgroups, libbpf
from ambient.capture.errors import CaptureError
from ambient.capture.libbpf import Link, Map, Object, Program

_BPF_FS_MAGIC = 0xCAFE4A11
HOOKS = {"connect4": "connect", "connect6": "connect", "getpeername4": "peername", "getpeername6": "peername"}


class Pins:
    """The pinned state, open. Holds a descriptor of everything, so that a removed pin alone takes nothing away."""

    def __init__(self, cgroup: Path, directory: Path, lock: int) -> None:
        self.cgroup = cgroup
        self.directory = directory
        self.maps: dict[str, Map] = {}
        self.hooks: dict[str, Link] = {}
        self.lookups: dict[int, Link] = {}
        self._programs: dict[str, Program] = {}
        self._lock = lock
        self._lookup_elf = _elf("lookup")

    @classmethod
    def open(cls, cgroup: Path, bpffs: Path, wait: float = 0.0) -> Pins:
        """Load, or adopt and bring up to date. Raises CaptureError and leaves everything as it was."""
        directory = bpffs / f"ambient-v{abi.ABI_VERSION}"
        _check_place(bpffs)
        with contextlib.ExitStack() as undo:
            for each in (directory, directory / "maps", directory / "links", directory / "lookup"):
                if not each.exists():
                    each.mkdir(mode=0o700)
                    undo.callback(each.rmdir)
            pins = cls(cgroup, directory, _lock(directory, wait))
            undo.callback(pins.close)
            pins._load(undo)
            for hook in HOOKS:
                pins._attach(hook, undo)
            pins._adopt_lookups(undo)
            undo.pop_all()
        return pins

    def attach_lookup(self, cookie: int, netns_fd: int) -> None:
        """Attach and pin the socket lookup in this namespace, in place of what was pinned for it."""
        path = self._lookup_path(cookie)
        with self._lookup_program(cookie) as program:
            link = Link.create(program, netns_fd, libbpf.SK_LOOKUP_ATTACH, f"the network namespace {cookie}")
        try:
            path.unlink(missing_ok=True)
            link.pin(path)
        except BaseException:
            link.close()
            raise
        if before := self.lookups.pop(cookie, None):
            before.close()
        self.lookups[cookie] = link

    def detach_lookup(self, cookie: int) -> None:
        self._lookup_path(cookie).unlink(missing_ok=True)
        if link := self.lookups.pop(cookie, None):
            link.close()

    def verify(self) -> list[str]:
        """Put back what was taken from the node's hooks and from the pins; says what it mended."""
        mended = []
        for each in ("maps", "links", "lookup"):
            if not (self.directory / each).exists():
                (self.directory / each).mkdir(mode=0o700, parents=True)
                mended.append(f"the pin directory {each} was gone")
        for hook, link in tuple(self.hooks.items()):
            if link.state().target != cgroups.identity(self.cgroup):
                with contextlib.ExitStack() as undo:
                    self._attach(hook, undo)
                    undo.pop_all()
                mended.append(f"the hook {hook} was detached from {self.cgroup}")
        held: list[tuple[Path, Map | Link]] = [
            *((self.directory / "maps" / name, each) for name, each in self.maps.items()),
            *((self.directory / "links" / hook, each) for hook, each in self.hooks.items()),
            *((self._lookup_path(cookie), each) for cookie, each in self.lookups.items()),
        ]
        for path, kept in held:
            if not path.exists():
                kept.pin(path)
                mended.append(f"the pin {path.relative_to(self.directory)} was gone")
        return mended

    def close(self) -> None:
        """Let go of everything; what is pinned goes on working."""
        for each in (*self.maps.values(), *self.hooks.values(), *self.lookups.values(), *self._programs.values()):
            each.close()
        for group in (self.maps, self.hooks, self.lookups, self._programs):
            group.clear()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def remove(self) -> None:
        """Unpin everything and close: programs detach, maps vanish."""
        for each in ("links", "lookup", "maps"):
            for pin in (self.directory / each).iterdir():
                pin.unlink()
            (self.directory / each).rmdir()
        self.directory.rmdir()
        self.close()

    def _load(self, undo: contextlib.ExitStack) -> None:
        """Programs of this version, on the pinned maps where there are any."""
        for path in (self.directory / "maps").iterdir():
            if found := Map.pinned(path):
                self.maps[path.name] = found
        for name in ("connect", "peername"):
            self._programs |= self._load_object(name, undo)
        with self._lookup_program(0):  # now, rather than when the first pod is enrolled: that it loads, and its maps
            pass

    def _load_object(self, name: str, undo: contextlib.ExitStack) -> dict[str, Program]:
        with Object(_elf(name), name) as loaded:
            loaded.reuse(self.maps)
            loaded.load()
            self._keep_new(loaded, undo)
            return {hook: loaded.program(hook) for hook, owner in HOOKS.items() if owner == name}

    def _keep_new(self, loaded: Object, undo: contextlib.ExitStack) -> None:
        for name, each in loaded.maps().items():
            if name in self.maps:
                each.close()
                continue
            path = self.directory / "maps" / name
            self.maps[name] = each
            each.pin(path)
            undo.callback(path.unlink)

    def _attach(self, hook: str, undo: contextlib.ExitStack) -> None:
        """Exchange the program of the pinned link where it is on our cgroup; attach anew otherwise."""
        path = self.directory / "links" / hook
        program = self._programs[hook]
        link = Link.pinned(path)
        if link and link.state().target == cgroups.identity(self.cgroup):
            _exchange(link, program, undo)
        else:
            before = link
            link = self._attach_new(hook, program)
            path.unlink(missing_ok=True)
            link.pin(path)
            if before:
                undo.callback(before.close)
                undo.callback(before.pin, path)
            undo.callback(path.unlink)
        if old := self.hooks.get(hook):
            old.close()
        self.hooks[hook] = link

    def _attach_new(self, hook: str, program: Program) -> Link:
        cgroup_fd = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return Link.create(program, cgroup_fd, libbpf.CGROUP_ATTACH[hook], f"{hook} of the cgroup {self.cgroup}")
        finally:
            os.close(cgroup_fd)

    def _adopt_lookups(self, undo: contextlib.ExitStack) -> None:
        """Bring every living namespace's socket lookup up to date. The dead ones stay for their owner to forget."""
        for path in (self.directory / "lookup").iterdir():
            link = Link.pinned(path)
            if link is None:
                continue
            cookie = int(path.name)
            self.lookups[cookie] = link
            if link.state().target:
                with self._lookup_program(cookie) as program:
                    _exchange(link, program, undo)

    def _lookup_program(self, cookie: int) -> Program:
        with Object(self._lookup_elf, "lookup") as loaded:
            loaded.set_constants(bytes(ctypes.c_uint64(cookie)))
            loaded.reuse(self.maps)
            loaded.load()
            return loaded.program("lookup")

    def _lookup_path(self, cookie: int) -> Path:
        return self.directory / "lookup" / str(cookie)


def _exchange(link: Link, program: Program, undo: contextlib.ExitStack) -> None:
    before = undo.enter_context(Program.by_id(link.state().program))
    link.update(program)
    undo.callback(link.update, before)


def _elf(name: str) -> bytes:
    file = resources.files("ambient") / "native" / f"{name}.bpf.o"
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise CaptureError(f"{file} is missing: the package was built without eBPF programs (make native)") from error


def is_bpf_file_system(place: Path) -> bool:
    return libbpf.filesystem_type(place) == _BPF_FS_MAGIC


def of_other_versions(bpffs: Path) -> list[Path]:
    """Pins that this version neither reads nor removes."""
    return sorted(each for each in bpffs.glob("ambient-v*") if each.name != f"ambient-v{abi.ABI_VERSION}")


def try_loading() -> str:
    """Load every program and let it go again; nothing is attached or pinned. Says which programs."""
    for name in ("connect", "peername", "lookup"):
        with Object(_elf(name), name) as loaded:
            loaded.load()
    return ", ".join((*HOOKS, "sk_lookup"))


def hook_names(cgroup: Path) -> list[str]:
    """Names of the programs, anybody's, that run in connect() for this cgroup."""
    names = []
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for hook in ("connect4", "connect6"):
            for number in libbpf.attached(fd, libbpf.CGROUP_ATTACH[hook]):
                with Program.by_id(number) as program:
                    names.append(program.name())
    finally:
        os.close(fd)
    return names


def _check_place(bpffs: Path) -> None:
    if not is_bpf_file_system(bpffs):
        raise CaptureError(f"{bpffs} is not a BPF file system: mount -t bpf bpf {bpffs}")
    for other in of_other_versions(bpffs):
        raise CaptureError(
            f"{other} was left by another version of ambient, whose maps this one (ABI {abi.ABI_VERSION}) does not"
            " read: stop that agent and uninstall with that version"
        )


def _lock(directory: Path, wait: float) -> int:
    """One agent at a time; the kernel drops the lock with the process. It has no event: looked at every 10 ms."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            os.close(fd)
            raise CaptureError(f"another agent uses {directory}: stop it, or give this one its own --bpffs") from error
        return fd
