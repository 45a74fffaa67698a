"""Two pods of a node, joined by a veth pair, and one thread that connects, accepts and closes. As root."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from ambient.capture import Capture, abi, cgroups, direct, netns
from ambient.model.mesh import CaptureSettings

NAMES = ("amb-bench-client", "amb-bench-server")
ADDRESSES = tuple(map(ip_address, ("10.66.1.2", "10.66.1.3")))
PORT, VIP = 8080, (ip_address("10.66.9.9"), 80)
CALLS = 3000
CASES = ("no programs", "not enrolled", "direct, by address", "direct, by VIP")
_numbers = itertools.count(time.time_ns())


@contextlib.contextmanager
def place() -> Iterator[tuple[Path, Path]]:
    """A folder with a BPF file system and the compiled loop, a cgroup, and two network namespaces."""
    cgroup = cgroups.root() / NAMES[0]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as undo:
        folder = Path(name)
        _run("cc", "-O2", str(Path(__file__).with_name("loop.c")), "-o", str(folder / "loop"))
        (folder / "bpf").mkdir()
        _run("mount", "-t", "bpf", "bpf", str(folder / "bpf"))
        undo.callback(_run, "umount", str(folder / "bpf"))
        cgroup.mkdir()
        undo.callback(cgroup.rmdir)
        for each in NAMES:
            _run("ip", "netns", "add", each)
            undo.callback(_run, "ip", "netns", "del", each)
            _run("ip", "-n", each, "link", "set", "lo", "up")
        client, server = NAMES
        _run("ip", "-n", client, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", server)
        for each, address in zip(NAMES, ADDRESSES, strict=True):
            _run("ip", "-n", each, "addr", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", each, "link", "set", "eth0", "up")
        yield folder, cgroup


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


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
