"""The sides of the comparison: each is pods, an address to load, and the processes whose CPU time counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ambient.lab import Lab
from bench.engine import envoy, pods

NAMES = ("none", "envoy", "ambient")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    name: str
    lab: Lab  # the client pod runs the load generators
    address: str  # where they find the server's ports
    proxies: tuple[int, ...] = ()
    agents: tuple[int, ...] = ()

    def said(self) -> str:
        """The ends of the agents' and engines' logs without the access records, for when one of them ended."""
        lines = []
        for node in self.lab.status()["nodes"] if self.agents else ():
            spoken = [line for line in self.lab.logs(f"node/{node}").splitlines() if not line.startswith("{")]
            lines += [f"{node} | {line}" for line in spoken[-8:]]
        return "\n".join(lines)


@contextlib.contextmanager
def standing(names: tuple[str, ...], folder: Path) -> Iterator[list[Side]]:
    """All sides at once, so that rounds can alternate; an idle side costs nothing."""
    nginx = folder / "nginx.conf"
    nginx.write_text(pods.nginx_conf(folder))
    with contextlib.ExitStack() as stack:
        sides = []
        ca_dir = folder / "ca"
        if "ambient" in names:
            mesh = stack.enter_context(Lab("benchmesh"))
            mesh.up(pods.manifests(nginx, enrolled=True))
            ca_dir = mesh.layout.ca
            sides.append(_ambient(mesh))
        if {"none", "envoy"} & set(names):
            bare = stack.enter_context(Lab("benchbare"))
            bare.up(pods.manifests(nginx, enrolled=False), mesh=False)
            server = _address(bare)
            sides.append(Side(name="none", lab=bare, address=server))
            if "envoy" in names:
                sides.append(stack.enter_context(_envoys(bare, server, ca_dir, folder)))
        yield sorted((side for side in sides if side.name in names), key=lambda side: NAMES.index(side.name))


def _ambient(lab: Lab) -> Side:
    nodes = lab.status()["nodes"].values()
    return Side(
        name="ambient",
        lab=lab,
        address=_address(lab),
        proxies=tuple(node["engine_pid"] for node in nodes),
        agents=tuple(node["agent_pid"] for node in nodes),
    )


@contextlib.contextmanager
def _envoys(lab: Lab, server: str, ca_dir: Path, folder: Path) -> Iterator[Side]:
    far = envoy.server(server, envoy.certificate(ca_dir, "server"))
    near = envoy.client(server, envoy.certificate(ca_dir, "client"))
    with (
        envoy.running(lab, pods.SERVER, far, folder) as far_pid,
        envoy.running(lab, pods.CLIENT, near, folder) as near_pid,
    ):
        yield Side(name="envoy", lab=lab, address="127.0.0.1", proxies=(near_pid, far_pid))


def _address(lab: Lab) -> str:
    """The server pod's IPv4 address."""
    return str(lab.pod(pods.SERVER)["ips"][0])
