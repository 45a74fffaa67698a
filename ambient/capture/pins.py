"""What stays in the kernel while no agent runs: maps, programs and links, pinned under <bpffs>/ambient-v<ABI>/.

    maps/NAME        every map of bpf/maps.h
    links/HOOK       sock_ops, connect4, connect6, setsockopt, getpeername4, getpeername6, on the node's cgroup
    lookup/COOKIE    the sk_lookup program of one enrolled network namespace
    links_spare/HOOK, lookup_spare/COOKIE

A spare is a second link to a program that does the same, so that nothing gets past while one of them is detached. It
comes after the first, because it counts only what the first did not do.

Opening is a transaction: either everything is loaded, attached and pinned, or what was there before is there again.
Knows programs and pins; which pods there are, and what is in the maps, is not its business.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import time
from collections.abc import Container, Iterator
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from ambient.capture import abi, cgroups, libbpf
from ambient.capture.errors import CaptureError
from ambient.capture.libbpf import Link, Map, Object, Program

_BPF_FS_MAGIC = 0xCAFE4A11
_SPARE = "_spare"


class Hook(NamedTuple):
    object: str
    attach_type: int


HOOKS = {  # by program, in the order of attaching: what announces direct connections is there before they are made
    "sock_ops": Hook("sockops", libbpf.SOCK_OPS),
    "sock_ops_spare": Hook("sockops", libbpf.SOCK_OPS),
    "connect4": Hook("connect", libbpf.CONNECT4),
    "connect4_spare": Hook("connect", libbpf.CONNECT4),
    "connect6": Hook("connect", libbpf.CONNECT6),
    "connect6_spare": Hook("connect", libbpf.CONNECT6),
    "setsockopt": Hook("setsockopt", libbpf.SETSOCKOPT),
    "setsockopt_spare": Hook("setsockopt", libbpf.SETSOCKOPT),
    "getpeername4": Hook("peername", libbpf.GETPEERNAME4),
    "getpeername6": Hook("peername", libbpf.GETPEERNAME6),
}
LOOKUPS = ("lookup", "lookup_spare")  # programs, and the directories of their pins
_OBJECTS = ("connect", "sockops", "setsockopt", "peername")
_DIRECTORIES = ("maps", "links", "links_spare", *LOOKUPS)


class Pins:
    """The pinned state, open. Holds a descriptor of everything, so that a removed pin alone takes nothing away."""

    def __init__(self, cgroup: Path, directory: Path, lock: int) -> None:
        self.cgroup = cgroup
        self.directory = directory
        self.maps: dict[str, Map] = {}
        self.hooks: dict[str, Link] = {}
        self._lookups: dict[int, dict[str, Link]] = {}  # by cookie and program
        self._programs: dict[str, Program] = {}
        self._lock = lock
        self._lookup_elf = _elf("lookup")

    @classmethod
    def open(cls, cgroup: Path, bpffs: Path, wait: float = 0.0) -> Pins:
        """Load, or adopt and bring up to date. Raises CaptureError and leaves everything as it was."""
        directory = bpffs / f"ambient-v{abi.ABI_VERSION}"
        _check_place(bpffs)
        with ExitStack() as replaced, ExitStack() as undo:
            for each in (directory, *(directory / name for name in _DIRECTORIES)):
                if not each.exists():
                    each.mkdir(mode=0o700)
                    undo.callback(each.rmdir)
            pins = cls(cgroup, directory, _lock(directory, wait))
            undo.callback(pins.close)
            pins._load(undo)
            pins._void_what_nobody_kept()
            pins._attach_hooks(HOOKS, undo, replaced)
            pins._adopt_lookups(undo, replaced)
            undo.pop_all()
        return pins

    @property
    def lookups(self) -> frozenset[int]:
        """Cookies of the network namespaces that a socket lookup is pinned for."""
        return frozenset(self._lookups)

    def netns_inode(self, cookie: int) -> int:
        """Where the lookup is attached (an inode's lower 32 bits); 0: nowhere, or the namespace is gone."""
        return max((link.state().target for link in self._lookups.get(cookie, {}).values()), default=0)

    def lookup_attached(self, cookie: int, inode: int) -> bool:
        """Whether lookup and spare are both in this namespace."""
        links = self._lookups.get(cookie, {})
        return all(name in links and links[name].state().target == inode & 0xFFFFFFFF for name in LOOKUPS)

    def attach_lookup(self, cookie: int, netns_fd: int) -> None:
        """Attach and pin the socket lookup and its spare in this namespace, in place of what was pinned for it."""
        with ExitStack() as undo:
            links: dict[str, Link] = {}
            for name, program in self._lookup_programs(cookie).items():
                with program:
                    links[name] = Link.create(program, netns_fd, libbpf.SK_LOOKUP, f"the network namespace {cookie}")
                undo.callback(links[name].close)
            for name, link in links.items():
                self._lookup_path(name, cookie).unlink(missing_ok=True)
                link.pin(self._lookup_path(name, cookie))
            undo.pop_all()
        for before in self._lookups.pop(cookie, {}).values():
            before.close()
        self._lookups[cookie] = links

    def detach_lookup(self, cookie: int) -> None:
        for name in LOOKUPS:
            self._lookup_path(name, cookie).unlink(missing_ok=True)
        for link in self._lookups.pop(cookie, {}).values():
            link.close()

    def verify(self) -> list[str]:
        """Put back what was taken from the node's hooks and from the pins; says what it mended."""
        mended = []
        for each in _DIRECTORIES:
            if not (self.directory / each).exists():
                (self.directory / each).mkdir(mode=0o700, parents=True)
                mended.append(f"the pin directory {each} was gone")
        if detached := [hook for hook, link in self.hooks.items() if not self._attached(link)]:
            with ExitStack() as replaced, ExitStack() as undo:
                self._attach_hooks(detached, undo, replaced)
                undo.pop_all()
            mended += [f"the hook {hook} was detached from {self.cgroup}" for hook in detached]
        held: list[tuple[Path, Map | Link]] = [
            *((self.directory / "maps" / name, each) for name, each in self.maps.items()),
            *((self._hook_path(hook), each) for hook, each in self.hooks.items()),
            *((self._lookup_path(name, cookie), each) for name, cookie, each in self._lookup_links()),
        ]
        for path, kept in held:
            if not path.exists():
                kept.pin(path)
                mended.append(f"the pin {path.relative_to(self.directory)} was gone")
        return mended

    def close(self) -> None:
        """Let go of everything; what is pinned goes on working."""
        lookups = [link for _, _, link in self._lookup_links()]
        for each in (*self.maps.values(), *self.hooks.values(), *lookups, *self._programs.values()):
            each.close()
        for group in (self.maps, self.hooks, self._lookups, self._programs):
            group.clear()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def remove(self) -> None:
        """Unpin everything and close: programs detach, maps vanish."""
        for each in reversed(_DIRECTORIES):
            for pin in (self.directory / each).iterdir():
                pin.unlink()
            (self.directory / each).rmdir()
        self.directory.rmdir()
        self.close()

    def _load(self, undo: ExitStack) -> None:
        """Programs of this version, on the pinned maps where there are any."""
        for path in (self.directory / "maps").iterdir():
            if found := Map.pinned(path):
                self.maps[path.name] = found
        for name in _OBJECTS:
            self._programs |= self._load_object(name, undo)
        # now, rather than when the first pod is enrolled: that it loads, and its maps
        for program in self._lookup_programs(0).values():
            program.close()

    def _void_what_nobody_kept(self) -> None:
        """Verdicts hold only under connect hooks that read them: others were attached by an agent that knew of none."""
        verdicts = self.maps["verdicts"]
        for hook in ("connect4", "connect6"):
            with ExitStack() as opened:
                link = Link.pinned(self._hook_path(hook))
                if link and opened.enter_context(link) and self._attached(link):
                    program = opened.enter_context(Program.by_id(link.state().program))
                    if verdicts.id in program.maps():
                        continue
                for key in verdicts:
                    verdicts.delete(key)

    def _load_object(self, name: str, undo: ExitStack) -> dict[str, Program]:
        with Object(_elf(name), name) as loaded:
            loaded.reuse(self.maps)
            loaded.load()
            self._keep_new(loaded, undo)
            return {program: loaded.program(program) for program, hook in HOOKS.items() if hook.object == name}

    def _keep_new(self, loaded: Object, undo: ExitStack) -> None:
        for name, each in loaded.maps().items():
            if name in self.maps:
                each.close()
                continue
            path = self.directory / "maps" / name
            self.maps[name] = each
            each.pin(path)
            undo.callback(path.unlink)

    def _attach_hooks(self, wanted: Container[str], undo: ExitStack, replaced: ExitStack) -> None:
        """Attach these, and behind each first one that had to be attached anew its spare again."""
        anew: set[str] = set()
        for hook in HOOKS:
            behind = hook.removesuffix(_SPARE) in anew
            if (hook in wanted or behind) and self._attach(hook, undo, replaced, anew=behind):
                anew.add(hook)

    def _attach(self, hook: str, undo: ExitStack, replaced: ExitStack, *, anew: bool) -> bool:
        """Exchange the program of the pinned link where it is on our cgroup; attach anew otherwise, which it tells."""
        path = self._hook_path(hook)
        program = self._programs[hook]
        link = Link.pinned(path)
        if keep := link is not None and self._attached(link) and not anew:
            _exchange(link, program, undo, replaced)
        else:
            before, link = link, self._attach_new(hook, program)
            if before:
                path.unlink()
                undo.callback(replaced.enter_context(before).pin, path)
            link.pin(path)
            undo.callback(path.unlink)
        if old := self.hooks.get(hook):
            old.close()
        self.hooks[hook] = link
        return not keep

    def _attached(self, link: Link) -> bool:
        return link.state().target == cgroups.identity(self.cgroup)

    def _attach_new(self, hook: str, program: Program) -> Link:
        cgroup_fd = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return Link.create(program, cgroup_fd, HOOKS[hook].attach_type, f"{hook} of the cgroup {self.cgroup}")
        finally:
            os.close(cgroup_fd)

    def _adopt_lookups(self, undo: ExitStack, replaced: ExitStack) -> None:
        """Bring every living namespace's socket lookup up to date. The dead ones stay for their owner to forget."""
        for name in LOOKUPS:
            for path in (self.directory / name).iterdir():
                if link := Link.pinned(path):
                    self._lookups.setdefault(int(path.name), {})[name] = link
        for cookie, links in self._lookups.items():
            programs = self._lookup_programs(cookie) if self.netns_inode(cookie) else {}
            for name, program in programs.items():
                with program:
                    if name in links and links[name].state().target:
                        _exchange(links[name], program, undo, replaced)

    def _lookup_programs(self, cookie: int) -> dict[str, Program]:
        with Object(self._lookup_elf, "lookup") as loaded:
            loaded.set_constants(bytes(ctypes.c_uint64(cookie)))
            loaded.reuse(self.maps)
            loaded.load()
            return {name: loaded.program(name) for name in LOOKUPS}

    def _lookup_links(self) -> Iterator[tuple[str, int, Link]]:
        for cookie, links in self._lookups.items():
            for name, link in links.items():
                yield name, cookie, link

    def _hook_path(self, hook: str) -> Path:
        first = hook.removesuffix(_SPARE)
        return self.directory / ("links" if hook == first else "links_spare") / first

    def _lookup_path(self, name: str, cookie: int) -> Path:
        return self.directory / name / str(cookie)


def _exchange(link: Link, program: Program, undo: ExitStack, replaced: ExitStack) -> None:
    before = replaced.enter_context(Program.by_id(link.state().program))
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
    for name in (*_OBJECTS, "lookup"):
        with Object(_elf(name), name) as loaded:
            loaded.load()
    return ", ".join((*HOOKS, *LOOKUPS))


def hook_names(cgroup: Path) -> list[str]:
    """Names of the programs, anybody's, that run in connect() for this cgroup."""
    names = []
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for attach_type in (libbpf.CONNECT4, libbpf.CONNECT6):
            for number in libbpf.attached(fd, attach_type):
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
