"""python -m bench.setsockopt: CPU time per setsockopt(TCP_NODELAY) without and with our hook. As root.

One process is of a pod that is not enrolled, one has a captured connection of a pod that is. A round measures both
with the hook and its spare attached, and both without; the table has the medians of the rounds.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import click

from ambient.capture import Capture, CaptureError, netns
from ambient.capture.libbpf import Link
from ambient.model.mesh import CaptureSettings
from bench import command, place

NAME = "amb-bench-sockopt"
ADDRESS, FAR = "10.66.0.2", "10.66.0.9"
CALLS = 100_000  # 20 ms
HOOKS = ("links/setsockopt", "links_spare/setsockopt")
Ask = Callable[[], float]  # nanoseconds per call


@click.command(cls=command.Command)
@click.option("--rounds", default=61, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """What the setsockopt hook costs a process outside of the mesh, and an enrolled one."""
    command.need_root("to make a pod and load programs")
    found: dict[str, list[float]] = {}
    with command.told(CaptureError), contextlib.ExitStack() as stack:
        folder, cgroup = stack.enter_context(_place())
        for attached in [True, False] * rounds:
            with _capture(cgroup, folder / "bpf", attached) as capture, contextlib.ExitStack() as round_:
                for who, ask in round_.enter_context(_processes(capture, cgroup, folder / "loop")).items():
                    found.setdefault(f"{who}, {'with the hook' if attached else 'without'}", []).append(ask())
    for what, values in sorted(found.items()):
        click.echo(f"{what:32} {statistics.median(values):6.1f} ns ({min(values):.1f} to {max(values):.1f})")


@contextlib.contextmanager
def _place() -> Iterator[tuple[Path, Path]]:
    """A folder with a BPF file system and the compiled loop, and a cgroup; a pod's network namespace is there."""
    with place.made(Path(__file__).with_name("loop.c"), NAME) as made:
        place.ip(NAME, "link add eth0 type veth", f"addr add {ADDRESS}/24 dev eth0", "link set eth0 up")
        yield made


@contextlib.contextmanager
def _capture(cgroup: Path, bpffs: Path, attached: bool) -> Iterator[Capture]:
    capture = Capture.open(cgroup, bpffs)
    try:
        for hook in () if attached else HOOKS:
            link = Link.pinned(next(bpffs.glob("ambient-v*")) / hook)
            assert link
            with link:
                link.detach()
        yield capture
    finally:
        capture.uninstall()


@contextlib.contextmanager
def _processes(capture: Capture, cgroup: Path, loop: Path) -> Iterator[dict[str, Ask]]:
    where = netns.open(f"/run/netns/{NAME}")
    listeners = capture.enrol(where, addresses=(ip_address(ADDRESS),), settings=CaptureSettings())
    where.close()
    commands = {"not enrolled": [], "enrolled": ["ip", "netns", "exec", NAME]}
    with contextlib.ExitStack() as stack:
        for each in listeners.values():
            stack.enter_context(each)
        asks: dict[str, Ask] = {}
        for who, enter in commands.items():
            words = [*enter, str(loop), str(CALLS), *([FAR] if enter else [])]
            process = stack.enter_context(_started(words, cgroup))
            asks[who] = lambda process=process: _ask(process)  # type: ignore[misc]
        yield asks


@contextlib.contextmanager
def _started(words: list[str], cgroup: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the cgroup. At the end of its input it ends."""
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())),
    ) as process:
        yield process


def _ask(process: subprocess.Popen[bytes]) -> float:
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"x")
    return float(process.stdout.readline())


if __name__ == "__main__":
    main()
