"""What this agent can say for `ambient verify`: gathers from kernel, engine and store; observe.evidence words it.

Changes nothing, but plaintext connections to this node's pods are tried where they must be refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from ambient.capture import established, holding, netns
from ambient.capture.direct import Place
from ambient.capture.errors import CaptureError
from ambient.model.mesh import TUNNEL_PORT, IPAddress, Workload
from ambient.observe import evidence
from ambient.observe.records import Flow

if TYPE_CHECKING:
    from ambient.agent.root import Agent
    from ambient.agent.scrape import Scrape


log = logging.getLogger(__name__)
ENGINE_S = 4.0  # for a list that takes milliseconds: whoever asks waits 10 s at most


async def testify(agent: Agent, scrape: Scrape, namespace: str) -> evidence.Row:
    world = agent.world
    mine = [pod for pod in world.workloads_in(namespace) if pod.node == agent.settings.node]
    captured = [pod for pod in mine if agent.enrolment.is_captured(pod.key)]
    certificates = {str(row["identity"]): row for row in agent.store.status()}
    doors = [
        (pod.key, ip, port) for pod in captured if (port := evidence.port_to_try(world, pod)) for ip in pod.addresses
    ]
    knocks, live = await asyncio.gather(agent.knocks.at([(ip, port) for _, ip, port in doors]), _live(agent, scrape))
    seen = {}
    vouched = await agent.ways.admitted()
    clear = {pod.key: await _in_the_clear(agent, pod) for pod in captured}
    vouched |= await agent.ways.admitted()  # what began and ended meanwhile is in one of the two
    for pod in mine:
        identity = str(pod.identity(world.mesh.trust_domain))
        seen[pod.key] = evidence.Seen(
            state=agent.enrolment.state(pod.key),
            certificate=certificates.get(identity) if pod in captured else None,
            knocks=tuple(met for (key, _, _), met in zip(doors, knocks, strict=True) if key == pod.key),
            clear=clear.get(pod.key, ()),
            direct=frozenset(each for each in clear.get(pod.key) or () if _is_vouched(vouched, pod, *each)),
        )
    blockers = agent.not_ready()
    if live is None:
        blockers.append(f"engine {agent.engines.pid} does not answer: is it stopped?")
    return evidence.evidence(
        world,
        namespace,
        evidence.Witness(
            node=agent.settings.node,
            host=frozenset(agent.proxy.host),
            blockers=blockers,
            errors=agent.convergence.errors,
            paths=agent.paths.of(namespace, live or ()),
            seen=seen,
        ),
    )


def _is_vouched(
    vouched: frozenset[tuple[Place, Place]], pod: Workload, inbound: bool, port: int, remote: IPAddress, far: int
) -> bool:
    """By the kernel's own table of what it let through, at whichever of the pod's addresses."""
    there = remote, far
    ends = ((there, (ip, port)) if inbound else ((ip, port), there) for ip in pod.addresses)
    return not vouched.isdisjoint(ends)


async def _live(agent: Agent, scrape: Scrape) -> list[Flow] | None:
    try:
        async with asyncio.timeout(ENGINE_S):
            return [side for each in await scrape.connections() for side in agent.telemetry.both(each.flow)]
    except TimeoutError:
        return None


async def _in_the_clear(agent: Agent, pod: Workload) -> tuple[tuple[bool, int, IPAddress, int], ...] | None:
    try:
        space = agent.enrolment.open(pod.key)
    except (CaptureError, KeyError):  # it left meanwhile, perhaps
        return None
    with contextlib.closing(space):
        try:
            found = await agent.in_order(functools.partial(_look, space, pod.addresses, agent.engines.pids))
        except OSError:
            log.exception("the connections of pod %s cannot be looked at", pod.key)
            return None
    return tuple((each.inbound, each.local_port, each.remote, each.remote_port) for each in found)


def _look(space: netns.PodNetns, own: Collection[IPAddress], engines: Collection[int]) -> list[established.Clear]:
    """Twice, where a tunnel's socket is nobody's: its engine may have closed it between two looks."""

    def look() -> list[established.Clear]:
        rows = netns.run(space.fd, established.here)
        held = holding.sockets(engines) if any(map(established.is_tunnel_like, rows)) else set()
        return established.in_the_clear(rows, own, held)

    found = look()
    if not any(TUNNEL_PORT in (each.local_port, each.remote_port) for each in found):
        return found
    again = set(look())
    return [each for each in found if each in again]
