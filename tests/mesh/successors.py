"""Who takes over: another agent, another engine; and what either may be: of another build, or of another version."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ambient.dataplane import abi, process
from ambient.lab.layout import netns_path
from ambient.lab.process import Entrance
from tests import slowness
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import PROGRAMS
from tests.mesh.waiting import eventually

ENGINE = Path(__file__).parents[2] / "engine"
NEXT_AGENT = PROGRAMS / "next_agent.py"


def states(mesh: Mesh, node: str) -> dict[int, str]:
    return {each["pid"]: each["state"] for each in mesh.agent(node, "engines")}


def upgrade(mesh: Mesh, node: str) -> tuple[int, int]:
    """SIGTERM to the engine that serves: the agent starts another. Returns both pids, the old one's first."""
    old = mesh.engine_pid(node)
    os.kill(old, signal.SIGTERM)
    new = eventually("another engine serves", lambda: (pid := mesh.engine_pid(node)) != old and pid, within=5)
    eventually("the old one drains", lambda: states(mesh, node).get(old, "gone") != "serving", within=5)
    return old, new


@contextlib.contextmanager
def another_agent(
    mesh: Mesh, *nodes: str, binary: Path | None = None, program: Path | None = None
) -> Iterator[dict[str, int]]:
    """Other agents take over on these nodes; gives their pids. Afterwards the lab's own are back.

    `binary`: the engine they start; `program`: what they are instead of `ambient`.
    """
    others: dict[str, subprocess.Popen[bytes]] = {}
    first = {node: mesh.agent_pid(node) for node in nodes}
    mesh.pause()  # or the lab would start third ones, which would take over in turn
    try:
        for node in nodes:
            _python, _dash_m, _ambient, *arguments = Path(f"/proc/{first[node]}/cmdline").read_text().split("\0")[:-1]
            command = [sys.executable, *([str(program)] if program else ["-m", "ambient"]), *arguments]
            command += ["--engine-binary", str(binary)] if binary else []
            where = Entrance(cgroup=mesh.layout.agent_cgroup(node), netns=netns_path(mesh.layout.node_netns(node)))
            with mesh.layout.agent_log(node).open("ab") as log:
                others[node] = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=where, env=dict(os.environ))
        for node in nodes:
            mesh.await_agent(node, first[node])
        yield {node: other.pid for node, other in others.items()}
    finally:
        mesh.go_on()
        codes = {node: other.wait(slowness.seconds(20)) for node, other in others.items()}
    assert set(codes.values()) <= {0}, "they leave when the lab's next agents take over"
    for node, other in others.items():
        mesh.await_agent(node, other.pid)


def engine_of_another_build(folder: Path) -> Path:
    """The engine, which says that it is another."""
    content = process.BINARY.read_bytes()
    changed = re.sub(rb"(\d+\.\d+\.\d+\+)[0-9a-f]{12}\0", lambda found: found[1] + b"anotherbuild\0", content)
    assert changed != content
    binary = folder / "engine-of-another-build"
    binary.write_bytes(changed)
    binary.chmod(0o755)
    folder.chmod(0o755)
    return binary


def engine_of_the_next_version(folder: Path) -> Path:
    """The engine as it may be after this one: another number, more fields in every struct."""
    flags = f"-O1 -g -DAMB_ABI={abi.ABI + 1} '-DAMB_ADDED=uint64_t added[3];'"
    words = ["make", "-s", "-C", str(ENGINE), f"BUILD={folder}", f"OUT={folder}", f"CFLAGS={flags}", "VERSION=next"]
    subprocess.run(words, check=True, capture_output=True)
    folder.chmod(0o755)
    return folder / "ambient-engine"
