"""What happens to the mesh. Each event strikes both nodes, and its function returns when the mesh is whole again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.disruption import loads
from bench.disruption.loads import Tally
from bench.disruption.scene import INSIDE, SAME_NODE, Scene
from tests.mesh.cluster import NODES
from tests.mesh.manifests import pod
from tests.mesh.successors import NEXT_AGENT, another_agent, states, upgrade
from tests.mesh.waiting import eventually, gone
from tests.mesh.wire import Wire

STOPPED_S = 5.0
AWAY_S = 2.0  # how long there is no control plane
BEFORE_S = 1.5  # the engines have seen the load: how many connections come is nothing new to them
AFTERWARDS_S = 1.5  # the load goes on for so long when the mesh is whole again: what broke late is seen, too


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    happens: Callable[[Scene], None]
    kills_connections: bool = False  # what an engine carries ends with it


@dataclass(frozen=True, slots=True)
class Outcome:
    event: Event
    seconds: float  # from the event to the end of the measurement
    tallies: dict[str, Tally]  # by path
    readable: list[str]  # what the wire oracle found: nothing, or the mesh leaks

    def missed(self) -> list[str]:
        """The goals that were not reached, in words."""
        found = [f"on the wire: {what}" for what in self.readable]
        for path, tally in self.tallies.items():
            spared = not self.event.kills_connections or path == SAME_NODE  # which goes past the engine
            failed = tally.failed if spared else tally.failed_late
            if spared and (tally.lost or tally.broken):
                found.append(f"{path}: {tally.lost} messages lost, {tally.broken} connections broken: {tally.errors}")
            if failed:
                found.append(f"{path}: {failed} new connections failed: {tally.errors}")
            if not tally.answered or not tally.came:
                found.append(f"{path}: there was no load, which proves nothing")
        return found


def agent_is_killed(scene: Scene) -> None:
    dead = {node: scene.mesh.kill_agent(node) for node in NODES}
    for node, pid in dead.items():
        scene.mesh.await_agent(node, pid)


def agent_is_upgraded(scene: Scene) -> None:
    """To one of the next version, which takes over from the running one; with it goes no engine."""
    with another_agent(scene.mesh, *NODES, program=NEXT_AGENT):
        time.sleep(AFTERWARDS_S)


def engine_is_upgraded(scene: Scene) -> None:
    for node in NODES:
        upgrade(scene.mesh, node)


def control_plane_is_restarted(scene: Scene) -> None:
    """A pod comes meanwhile: its news, and its certificate, wait for the next control plane."""
    newcomer = [pod("newcomer", "node2")]
    scene.plane.kill()
    applying = threading.Thread(target=scene.mesh.apply, args=(newcomer,))
    applying.start()
    time.sleep(AWAY_S)
    scene.plane.start()
    applying.join()
    assert scene.mesh.agent("node2")["pods"]["shop/newcomer"]["captured"]
    scene.mesh.settle()
    scene.mesh.delete(newcomer)


def agent_is_stopped(scene: Scene) -> None:
    pids = [scene.mesh.agent_pid(node) for node in NODES]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(STOPPED_S)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for node in NODES:
        eventually(f"{node} is ready", lambda node=node: scene.mesh.ready(node), within=20)  # type: ignore[misc]


def engine_is_killed(scene: Scene) -> None:
    dead = [pid for node in NODES for pid in scene.mesh.engines(node)]
    for pid in dead:
        os.kill(pid, signal.SIGKILL)
    for pid in dead:
        gone(pid)
    for node in NODES:
        another = lambda node=node: scene.mesh.engine_pid(node) not in (0, *dead)  # noqa: E731
        eventually(f"{node} has another engine", another, within=20)
    scene.mesh.settle()


EVENTS = (
    Event("the agent is killed", agent_is_killed),
    Event("the agent is upgraded and downgraded", agent_is_upgraded),
    Event("the engine is upgraded", engine_is_upgraded),
    Event("CA and control plane are restarted", control_plane_is_restarted),
    Event("the agent is stopped for 5 s", agent_is_stopped),
    Event("the engine is killed", engine_is_killed, kills_connections=True),
)


@contextmanager
def one_engine_each(scene: Scene) -> Iterator[None]:
    """Afterwards nothing is left of the event: the load is over, and with it the engines that only carried it."""
    yield
    scene.mesh.settle()
    eventually("one engine a node", lambda: all(len(scene.mesh.engines(node)) == 1 for node in NODES), within=20)
    assert all(state == "serving" for node in NODES for state in states(scene.mesh, node).values())


def measure(scene: Scene, event: Event, *, members: int, rate: int) -> Outcome:
    """What the event does to members and newcomers, with the wire oracle listening."""
    with one_engine_each(scene), Wire(scene.mesh, INSIDE) as wire, scene.load(members=members, rate=rate):
        time.sleep(BEFORE_S)
        scene.tally()
        began = time.monotonic()
        event.happens(scene)
        time.sleep(AFTERWARDS_S)
        tallies = scene.tally()
        seconds = time.monotonic() - began
    return Outcome(event, seconds, tallies, [*wire.findings(), *map(str, wire.readable(loads.SECRET))])
