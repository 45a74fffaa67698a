"""Kernel side of `ambient trace`: bcc programs on tracepoints, events as JSON lines on stdout. Changes nothing.

Run by Debian's own Python (bcc is built for it) as a process of its own, with nothing but the standard library and bcc:
it must import nothing of ours. stdin: one JSON object {"addresses": [...], "headers": {"build": ..., "source": ...} or
null}; it ends when stdin ends. What it mounts is in a mount namespace of its own and goes with it.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import re
import select
import signal
import sys
from typing import Any

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
TRACEFS = "/sys/kernel/tracing"
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trace.c")
RING_PAGES = 64  # 256 KiB: thousands of events; what does not fit is counted and said

KINDS = {1: "state", 2: "reset_sent", 3: "reset_seen", 4: "retransmit", 5: "connect_refused"}


def mounts(headers: dict[str, str] | None) -> None:
    """tracefs, and the headers where bcc looks for them, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), what + ": " + os.strerror(ctypes.get_errno()))

    check(libc.unshare(CLONE_NEWNS), "a mount namespace of our own")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")
    if not os.path.exists(TRACEFS + "/events"):
        check(libc.mount(b"tracefs", TRACEFS.encode(), b"tracefs", 0, None), "mounting tracefs at " + TRACEFS)
    if not os.path.exists("/sys/kernel/debug/tracing"):  # where bcc 0.26 looks
        check(libc.mount(b"debugfs", b"/sys/kernel/debug", b"debugfs", 0, None), "mounting debugfs")
    if headers:
        check(libc.mount(b"tmpfs", b"/lib/modules", b"tmpfs", 0, None), "mounting over /lib/modules")
        here = os.path.join("/lib/modules", os.uname().release)
        os.mkdir(here)
        for name, target in headers.items():
            os.symlink(target, os.path.join(here, name))


def tracepoints() -> tuple[list[str], dict[str, str]]:
    """What this kernel's tracepoints look like: defines for the program, and the words for its reset reasons."""
    found = []
    with open(TRACEFS + "/events/tcp/tcp_send_reset/format") as file:
        form = file.read()
    reasons = {}
    if "sk_rst_reason" in form:
        found.append("-DRESET_HAS_REASON")
        reasons = dict(re.findall(r'\{ (\d+), "(\w+)" \}', form))
    if os.path.exists(TRACEFS + "/events/syscalls/sys_exit_connect"):
        found.append("-DHAS_SYSCALLS")
    return found, reasons


def shown(packed: Any) -> str:
    ip = ipaddress.IPv6Address(bytes(packed))
    return str(ip.ipv4_mapped or ip)


def row(event: Any) -> dict[str, object]:
    return {
        "event": KINDS[event.kind],
        "at_ns": event.at_ns,
        "sock": f"{event.sock:x}",
        "age_ns": event.age_ns,
        "pid": event.pid,
        "cgroup": event.cgroup,
        "comm": event.comm.decode(errors="replace"),
        "source": shown(event.saddr),
        "source_port": event.sport,
        "destination": shown(event.daddr),
        "destination_port": event.dport,
        "detail": event.detail,
        "more": event.more,
    }


def say(value: dict[str, object]) -> None:
    try:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more; bcc, which calls us, would make an exit with a traceback of it
        os._exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to us too; our parent ends us by closing stdin
    asked = json.loads(sys.stdin.readline())
    mounts(asked["headers"])
    from bcc import BPF  # 77 MB and a second: after what can fail cheaply

    defines, reasons = tracepoints()
    with open(PROGRAM) as file:
        text = file.read()
    bpf = BPF(text=text, cflags=["-Wno-everything", *defines])
    pods = bpf["pods"]
    for address in asked["addresses"]:
        ip = ipaddress.ip_address(address)
        packed = ip.packed if ip.version == 6 else b"\0" * 10 + b"\xff\xff" + ip.packed
        pods[pods.Key((ctypes.c_ubyte * 16)(*packed))] = pods.Leaf(1)
    table = bpf["events"]
    table.open_perf_buffer(
        lambda _cpu, data, _size: say(row(table.event(data))),
        page_cnt=RING_PAGES,
        lost_cb=lambda lost: say({"event": "lost", "more": lost}),
    )
    say({"event": "ready", "reset_reasons": reasons})
    stdin = select.poll()
    stdin.register(sys.stdin, select.POLLHUP)
    while not stdin.poll(0):
        bpf.perf_buffer_poll(timeout=200)
    bpf.perf_buffer_poll(timeout=0)  # what came before the end, and we had no turn to read
    os._exit(0)  # the kernel detaches everything; bcc's own clean-up at exit raises


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))
