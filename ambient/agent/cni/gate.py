"""A pod's network is there, its first process is not: captured now, held back, or none of the mesh's business.

Answers the plugin's commands. What an ADD needs is waited for, because kubelet is often faster than the World; then the
pod is held, by name of what is missing, and the runtime tries again with another sandbox. It never starts uncaptured.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from ambient.agent.cni.namespaces import Namespaces
from ambient.agent.cni.request import (
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    NOT_CAPTURED,
    TRY_AGAIN_LATER,
    Refusal,
    Request,
)
from ambient.agent.cni.sandboxes import Sandboxes
from ambient.capture import netns
from ambient.capture.errors import CaptureError
from ambient.model.mesh import Workload
from ambient.model.world import World

KNOWN_S = 5.0  # for the World to tell of a pod that kubelet has: far beyond what a watch takes
# The same where only a label of the pod's own could make it the mesh's: a World that is later than this costs such a
# pod its first moments outside (it is captured when the World has it), an older one costs no other pod its start.
OUTSIDE_S = 1.0
log = logging.getLogger(__name__)


class Worlds(Protocol):
    """What is known of the mesh."""

    @property
    def source(self) -> World | None:
        """As it was last received; None before the first."""

    @property
    def news(self) -> asyncio.Condition:
        """Notified when there is another."""


class Captured(Protocol):
    """What is captured on this node."""

    @property
    def failures(self) -> Mapping[str, str]:
        """By workload key: why it is not."""

    def cookie_of(self, key: str) -> int | None:
        """Of the network namespace in which the workload is captured; None: it is not."""


class Gate:
    def __init__(
        self,
        worlds: Worlds,
        captured: Captured,
        settle: Callable[[], Awaitable[None]],
        sandboxes: Sandboxes,
        namespaces: Namespaces,
        exempt: Collection[str],
    ) -> None:
        """`settle`: converge, taking in what is true now, and return when that is done.

        `exempt`: namespaces whose pods are not held back for want of a World: the mesh needs them to get one.
        """
        self._worlds, self._captured, self._settle = worlds, captured, settle
        self._sandboxes, self._namespaces, self._exempt = sandboxes, namespaces, exempt

    async def answer(self, request: Request, descriptor: int) -> None:
        """Raises Refusal. `descriptor`: of the pod's network namespace, the caller's; -1: there is none."""
        match request.command:
            case "ADD":
                await self._add(request, descriptor)
            case "DEL":
                await self._gone({request.container})
            case "GC" if request.valid is not None:
                await self._gone({each.container for each in self._sandboxes} - request.valid)
            case "CHECK":
                self._check(request)
            case "GC":
                pass
            case _:
                raise Refusal(INVALID_ENVIRONMENT, f"ambient: {request.command or 'nothing'} is no command of CNI 1.1")

    async def _add(self, request: Request, descriptor: int) -> None:
        workload = await self._known(request)
        if workload is None or not workload.enrolled or workload.host_network:
            return
        if not request.addresses:
            why = f"ambient: the plugins before this one gave pod {workload.key} no address"
            raise Refusal(INVALID_CONFIG, why, "it cannot be captured; is ambient-cni the last of the chain?")
        if descriptor < 0:
            why = f"ambient: the network namespace of pod {workload.key} could not be opened"
            raise Refusal(INVALID_ENVIRONMENT, why, "CNI_NETNS is to be its path on the node")
        try:
            where = netns.of_descriptor(os.dup(descriptor), f"the sandbox of pod {workload.key}")
        except CaptureError as error:
            raise Refusal(INVALID_ENVIRONMENT, f"ambient: CNI_NETNS of pod {workload.key}: {error}") from error
        self._sandboxes.arrive(request.container, where, request.addresses, workload)
        await self._settle()
        if self._captured.cookie_of(workload.key) != where.cookie:
            why = self._captured.failures.get(workload.key) or "the configuration changed meanwhile"
            raise Refusal(TRY_AGAIN_LATER, f"ambient: pod {workload.key} is not captured: {why}")
        log.info("pod %s is captured before it starts", workload.key)

    async def _known(self, request: Request) -> Workload | None:
        """The pod as the World has it, waited for. None: it is none of the mesh's business. Raises Refusal."""
        began = asyncio.get_running_loop().time()
        async with self._worlds.news:
            while True:
                if (workload := self._find(request)) is not None:
                    return workload
                outside = self._is_outside(request.namespace)
                try:
                    patience = OUTSIDE_S if outside and self._worlds.source is not None else KNOWN_S
                    async with asyncio.timeout_at(began + patience):
                        await self._worlds.news.wait()
                except TimeoutError:
                    break
        if outside:
            log.warning("pod %s starts unseen: its namespace is outside, and the World has no such pod", request.pod)
            return None
        missing = f"pod {request.pod} (uid {request.uid or 'not given'})"
        if self._worlds.source is None:
            missing = "the first configuration: nothing was received from the source yet"
        why = f"ambient: the agent on this node waits for {missing}"
        details = f"not within {KNOWN_S:g} s; the pod is kept waiting so that it never runs outside the mesh"
        raise Refusal(TRY_AGAIN_LATER, why, details)

    def _find(self, request: Request) -> Workload | None:
        world = self._worlds.source
        workload = world.workloads.get(request.pod) if world is not None else None
        return workload if workload is not None and request.uid in ("", workload.uid) else None

    def _is_outside(self, namespace: str) -> bool:
        return namespace in self._exempt or self._namespaces.is_outside(namespace)

    async def _gone(self, containers: Collection[str]) -> None:
        gone = [each for each in containers if self._sandboxes.depart(each, self._worlds.source)]
        if gone:
            await self._settle()

    def _check(self, request: Request) -> None:
        workload = self._find(request)
        if workload is not None and workload.enrolled and self._captured.cookie_of(workload.key) is None:
            why = self._captured.failures.get(workload.key) or "the agent has not come to it"
            raise Refusal(NOT_CAPTURED, f"ambient: pod {workload.key} is not captured: {why}")
