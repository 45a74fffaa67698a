"""Make another process call the kernel: the only way to see from outside what its seccomp filter lets through.

x86-64 only. The process is stopped wherever it waits, its next instruction replaced by no other than the `syscall` it
is waiting in, and let go for one step. It is of no use afterwards: kill it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal

_ATTACH, _GETREGS, _SETREGS, _SINGLESTEP = 16, 12, 13, 9
_SYSCALL_INSTRUCTION = b"\x0f\x05"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Registers(ctypes.Structure):
    """struct user_regs_struct of sys/user.h."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in [
            "r15",
            "r14",
            "r13",
            "r12",
            "rbp",
            "rbx",
            "r11",
            "r10",
            "r9",
            "r8",
            "rax",
            "rcx",
            "rdx",
            "rsi",
            "rdi",
            "orig_rax",
            "rip",
            "cs",
            "eflags",
            "rsp",
            "ss",
            "fs_base",
            "gs_base",
            "ds",
            "es",
            "fs",
            "gs",
        ]
    ]


def supported() -> bool:
    return platform.machine() == "x86_64"


class Killed(Exception):
    """The kernel killed the process for the call."""


def call(pid: int, number: int, *arguments: int) -> int:
    """The result of system call `number` made by `pid`, negative errno included. Raises Killed."""
    _ptrace(_ATTACH, pid)
    _await_stop(pid)
    registers = _Registers()
    _ptrace(_GETREGS, pid, data=ctypes.addressof(registers))
    at = registers.rip - len(_SYSCALL_INSTRUCTION)
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(at)
        assert memory.read(2) == _SYSCALL_INSTRUCTION, "the process is not waiting in a system call"
    registers.rip = at
    registers.rax = number
    registers.orig_rax = (1 << 64) - 1  # no call to be restarted
    for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), (*arguments, 0, 0, 0, 0, 0, 0), strict=False):
        setattr(registers, name, value)
    _ptrace(_SETREGS, pid, data=ctypes.addressof(registers))
    _ptrace(_SINGLESTEP, pid)
    _await_stop(pid)
    _ptrace(_GETREGS, pid, data=ctypes.addressof(registers))
    result = registers.rax
    return int(result - (1 << 64) if result >> 63 else result)


def _await_stop(pid: int) -> None:
    _, status = os.waitpid(pid, 0x40000000)  # __WALL
    if os.WIFSIGNALED(status):
        raise Killed(signal.Signals(os.WTERMSIG(status)).name)
    assert os.WIFSTOPPED(status), f"status {status:#x}"
    if os.WSTOPSIG(status) == signal.SIGSYS:
        raise Killed("SIGSYS")


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, None, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace({request}, {pid}): {os.strerror(error)}")
