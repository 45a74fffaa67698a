"""Taking away what the mesh stands on, as somebody with root on a node could: by bpftool and ip, not our own code."""

from __future__ import annotations

import ctypes
import json
import socket
import subprocess
from pathlib import Path

from ambient.capture.abi import ABI_VERSION, ListenerKey
from ambient.capture.abi import Role as Role
from tests.mesh.cluster import NODES, Mesh

SO_NETNS_COOKIE = 71


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def pins(mesh: Mesh, node: str) -> Path:
    return mesh.layout.bpffs(node) / f"ambient-v{ABI_VERSION}"


def cookie(mesh: Mesh, pod: str) -> int:
    with mesh.inside(pod, socket.socket) as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")


def _delete(mesh: Mesh, pod: str, table: str, key: bytes) -> None:
    where = pins(mesh, mesh.facts["pods"][pod]["node"]) / "maps" / table
    run("bpftool", "map", "delete", "pinned", str(where), "key", "hex", *(f"{byte:02x}" for byte in key))


def end_lease(mesh: Mesh, node: str) -> None:
    """As if its agent had been away for half a day."""
    where = pins(mesh, node) / "maps" / "lease"
    run("bpftool", "map", "update", "pinned", str(where), "key", "hex", *["00"] * 4, "value", "hex", *["00"] * 8)


def delete_pod(mesh: Mesh, pod: str) -> None:
    _delete(mesh, pod, "pods", bytes(ctypes.c_uint64(cookie(mesh, pod))))


def delete_listener(mesh: Mesh, pod: str, role: Role) -> None:
    _delete(mesh, pod, "listeners", bytes(ListenerKey(cookie(mesh, pod), role)))


def empty(mesh: Mesh, node: str, table: str) -> None:
    """Every entry of a hash."""
    where = str(pins(mesh, node) / "maps" / table)
    for entry in json.loads(run("bpftool", "-j", "map", "dump", "pinned", where)):
        key = [f"{int(byte, 16):02x}" for byte in entry["key"]]
        subprocess.run(["bpftool", "map", "delete", "pinned", where, "key", "hex", *key], check=False)  # or it ended


def delete_exemptions(mesh: Mesh) -> None:
    for node in NODES:
        number = (mesh.layout.agent_cgroup(node) / "engine").stat().st_ino
        where = pins(mesh, node) / "maps" / "exempt"
        run(
            "bpftool",
            "map",
            "delete",
            "pinned",
            str(where),
            "key",
            "hex",
            *number.to_bytes(8, "little").hex(" ").split(),
        )


def unpin(mesh: Mesh, kind: str) -> None:
    """maps, links or lookup, on both nodes."""
    for node in NODES:
        for pin in (pins(mesh, node) / kind).iterdir():
            pin.unlink()


def detach(mesh: Mesh, node: str, pin: str) -> None:
    run("bpftool", "link", "detach", "pinned", str(pins(mesh, node) / pin))


def delete_routes(mesh: Mesh, pod: str) -> None:
    """The rules by which a marked packet comes back in, v4 and v6: all but the kernel's own three."""
    netns = mesh.facts["pods"][pod]["netns"]
    for family in ("-4", "-6"):
        for line in run("ip", "-n", netns, family, "rule").splitlines():
            priority, _, rule = line.partition(":")
            if "fwmark" in rule and "lookup" in rule:  # one piece: the rule behind it, which prohibits, stays
                run("ip", "-n", netns, family, "rule", "del", "priority", priority)


def entries(mesh: Mesh, node: str, table: str) -> int:
    text = run("bpftool", "-j", "map", "dump", "pinned", str(pins(mesh, node) / "maps" / table))
    return text.count('"key"')
