"""What is compared: each mode is a client pod, an address to load, and the processes that carry and decide.

Nodes have cores of their own: what runs on the client's node shares the first half of the machine's, what runs on the
server's the second. So the scheduler's moods are the same for all modes, and the price of a wake-up is that between
machines' cores, not that within one. Where both pods are on one node, each keeps its half and the mesh has all.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ambient.lab import Lab
from bench.mesh import cpu, envoy, pods

NAMES = ("none", "ambient", "envoy", "none_same", "ambient_same")
TITLES = {
    "none": "no mesh, across nodes",
    "ambient": "ambient, across nodes",
    "envoy": "Envoy HBONE pair, across nodes",
    "none_same": "no mesh, same node",
    "ambient_same": "ambient, same node",
}
MESH_LAB, BARE_LAB = "benchmesh", "benchbare"
RECORDS_END = 1 << 20  # bytes of a log that are looked at for the paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What carries for one side of a connection, and where it runs."""

    cores: tuple[int, ...]
    proxy: int = 0  # engine or Envoy
    agent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    name: str
    lab: Lab
    client: str  # the pod that runs the load generators
    client_cores: tuple[int, ...]
    address: str  # where they find the server's ports
    server_cores: tuple[int, ...]
    places: tuple[Place, ...] = ()
    nodes: tuple[str, ...] = ()  # whose agents write records

    @property
    def proxies(self) -> tuple[int, ...]:
        return tuple(place.proxy for place in self.places if place.proxy)

    @property
    def agents(self) -> tuple[int, ...]:
        return tuple(place.agent for place in self.places if place.agent)

    def command(self, words: list[str]) -> list[str]:
        """A load generator's, on the client's cores."""
        return ["taskset", "-c", ",".join(map(str, self.client_cores)), *words]

    def take_places(self) -> None:
        """Modes share processes: each puts them where it wants them before its round. Raises ProcessGone."""
        cpu.pin(_programs(self.lab, pods.SERVER), self.server_cores)
        for place in self.places:
            cpu.pin(filter(None, (place.proxy, place.agent)), place.cores)

    def said(self) -> str:
        """The ends of the agents' and engines' logs without the access records, for when one of them ended."""
        lines = []
        for node in self.nodes:
            spoken = [line for line in self.lab.logs(f"node/{node}").splitlines() if not line.startswith("{")]
            lines += [f"{node} | {line}" for line in spoken[-8:]]
        return "\n".join(lines)

    def carried(self) -> list[str]:
        """The paths that the latest access records name: how the mesh carried what was just measured."""
        paths = set()
        for log in self._logs():
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - RECORDS_END))
                whole = [line for line in file.read().splitlines() if line.startswith(b'{"') and line.endswith(b"}")]
            paths |= {json.loads(line)["path"] for line in whole}
        return sorted(paths)

    def forget_records(self) -> None:
        """Empty the logs, which grow by hundreds of megabytes else. They are appended to, so nothing tears."""
        for log in self._logs():
            os.truncate(log, 0)

    def _logs(self) -> list[Path]:
        return [self.lab.log_file(f"node/{node}") for node in self.nodes]


@contextlib.contextmanager
def standing(names: tuple[str, ...], folder: Path) -> Iterator[list[Mode]]:
    """All modes at once, so that rounds can alternate; an idle one costs nothing. In the order of NAMES."""
    first, second = halves(sorted(os.sched_getaffinity(0)))
    pods.write_files(folder)
    ca_dir = folder / "ca"
    with contextlib.ExitStack() as stack:
        modes = []
        if {"ambient", "ambient_same"} & set(names):
            mesh = stack.enter_context(_lab(MESH_LAB, folder, enrolled=True))
            ca_dir = mesh.layout.ca
            modes += _ambient(mesh, first, second)
        if {"none", "none_same", "envoy"} & set(names):
            bare = stack.enter_context(_lab(BARE_LAB, folder, enrolled=False))
            modes += _bare(bare, first, second)
            if "envoy" in names:
                modes.append(stack.enter_context(_envoys(bare, ca_dir, folder, first, second)))
        yield sorted((mode for mode in modes if mode.name in names), key=lambda mode: NAMES.index(mode.name))


def halves(cores: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The client's node's cores and the server's; one that is alone is both's."""
    half = len(cores) // 2
    return tuple(cores[: half or 1]), tuple(cores[half:])


@contextlib.contextmanager
def _lab(name: str, folder: Path, *, enrolled: bool) -> Iterator[Lab]:
    """Only one bench runs at a time (see __main__), so a lab that stands is what a killed one left."""
    with Lab(name) as lab:
        lab.down()
        lab.up(pods.manifests(folder, enrolled=enrolled), mesh=enrolled)
        yield lab


def _ambient(lab: Lab, first: tuple[int, ...], second: tuple[int, ...]) -> list[Mode]:
    nodes = lab.status()["nodes"]

    def place(node: str, cores: tuple[int, ...]) -> Place:
        return Place(cores=cores, proxy=nodes[node]["engine_pid"], agent=nodes[node]["agent_pid"])

    across = (place(pods.CLIENT_NODE, first), place(pods.SERVER_NODE, second))
    within = (place(pods.SERVER_NODE, (*first, *second)),)
    return [
        _plain(lab, "ambient", pods.CLIENT, first, second, across, (pods.CLIENT_NODE, pods.SERVER_NODE)),
        _plain(lab, "ambient_same", pods.NEIGHBOUR, first, second, within, (pods.SERVER_NODE,)),
    ]


def _bare(lab: Lab, first: tuple[int, ...], second: tuple[int, ...]) -> list[Mode]:
    return [
        _plain(lab, "none", pods.CLIENT, first, second),
        _plain(lab, "none_same", pods.NEIGHBOUR, first, second),
    ]


def _plain(
    lab: Lab,
    name: str,
    client: str,
    first: tuple[int, ...],
    second: tuple[int, ...],
    places: tuple[Place, ...] = (),
    nodes: tuple[str, ...] = (),
) -> Mode:
    """The client dials the server pod's IPv4 address."""
    address = str(lab.pod(pods.SERVER)["ips"][0])
    return Mode(
        name=name,
        lab=lab,
        client=client,
        client_cores=first,
        address=address,
        server_cores=second,
        places=places,
        nodes=nodes,
    )


@contextlib.contextmanager
def _envoys(lab: Lab, ca_dir: Path, folder: Path, first: tuple[int, ...], second: tuple[int, ...]) -> Iterator[Mode]:
    server = str(lab.pod(pods.SERVER)["ips"][0])
    far = envoy.server(server, envoy.certificate(ca_dir, "server"))
    near = envoy.client(server, envoy.certificate(ca_dir, "client"))
    with (
        envoy.running(lab, pods.SERVER, far, folder) as far_pid,
        envoy.running(lab, pods.CLIENT, near, folder) as near_pid,
    ):
        yield Mode(
            name="envoy",
            lab=lab,
            client=pods.CLIENT,
            client_cores=first,
            address="127.0.0.1",
            server_cores=second,
            places=(Place(cores=first, proxy=near_pid), Place(cores=second, proxy=far_pid)),
        )


def _programs(lab: Lab, pod: str) -> list[int]:
    """All processes of a pod."""
    where, _ = lab.entrance(pod)
    return [int(pid) for file in where.cgroup.rglob("cgroup.procs") for pid in file.read_text().split()]
