"""Two pods of a node, joined by a veth pair, and one thread that connects, accepts and closes. As root."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from ambient.capture import Capture, abi, direct, netns
from ambient.model.mesh import CaptureSettings
from bench import place as places

NAMES = ("amb-bench-client", "amb-bench-server")
ADDRESSES = tuple(map(ip_address, ("10.66.1.2", "10.66.1.3")))
PORT, VIP = 8080, (ip_address("10.66.9.9"), 80)
CALLS = 3000
CASES = ("no programs", "not enrolled", "direct, by address", "direct, by VIP")
_numbers = itertools.count(time.time_ns())


@contextlib.contextmanager
def place() -> Iterator[tuple[Path, Path]]:
    """A folder with a BPF file system and the compiled loop, and a cgroup; the two pods' namespaces are there."""
    client, server = NAMES
    with places.made(Path(__file__).with_name("loop.c"), *NAMES) as made:
        places.ip(client, f"link add eth0 type veth peer name eth0 netns {server}")
        for each, address in zip(NAMES, ADDRESSES, strict=True):
            places.ip(each, f"addr add {address}/24 dev eth0", "link set eth0 up")
        yield made


@contextlib.contextmanager
def prepared(case: str, cgroup: Path, bpffs: Path) -> Iterator[direct.Place]:
    """Where to dial."""
    at = ADDRESSES[1], PORT
    if case == "no programs":
        yield at
        return
    capture = Capture.open(cgroup, bpffs)
    with contextlib.ExitStack() as undo:
        undo.callback(capture.uninstall)
        if case == "not enrolled":
            yield at
            return
        cookies = []
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            where = netns.open(f"/run/netns/{name}")
            cookies.append(where.cookie)
            for each in capture.enrol(where, addresses=(address,), settings=CaptureSettings()).values():
                undo.enter_context(each)
            where.close()
        many = abi.ENDPOINTS if case == "direct, by VIP" else 1
        endpoint = direct.Endpoint(*at, weight=1, server=cookies[1])
        dialled = VIP if case == "direct, by VIP" else at
        verdict = direct.Verdict(next(_numbers), abi.Kind.DIRECT, (endpoint,) * many)
        capture.direct.renew(3600)
        capture.direct.put(cookies[0], dialled, verdict)
        yield dialled
        records: list[direct.Ended] = []
        while capture.direct.read(records.append):
            pass
        assert len(records) == 2 * CALLS, len(records)


def measure(loop: Path, cgroup: Path, dial: direct.Place) -> float:
    """Nanoseconds per connection, the second time: by then everything has been seen once."""
    with subprocess.Popen(
        [loop, str(CALLS), *(f"/run/netns/{name}" for name in NAMES), f"{ADDRESSES[1]}:{PORT}", f"{dial[0]}:{dial[1]}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())),
    ) as process:
        said, _ = process.communicate(b"xx")
    assert process.returncode == 0
    return float(said.split()[-1])
