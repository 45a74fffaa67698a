"""Pods that claim an address which is another's, told as Events: or their owners wonder why they are not reached.

One replica's business. What passes by itself is not told: an address is two pods' for a moment whenever a new pod gets
that of one whose object is not gone yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ambient.control.events import Events, Subject
from ambient.model.contradictions import CLAIMS, Contradiction
from ambient.model.world import World

LOOK_S = 10.0
LASTING_S = 30.0  # kubelets delete a pod's object within seconds of its end

KIND, FIELD = CLAIMS["wl"]
INSTEAD = "until that is settled the mesh takes the address for nobody's, and this pod is not reached by it"


class Contests:
    def __init__(self, events: Events, world: Callable[[], World]) -> None:
        self._events = events
        self._world = world
        self._since: dict[Contradiction, float] = {}  # loop's time

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._look(asyncio.get_running_loop().time())
            await asyncio.sleep(LOOK_S)

    def _look(self, now: float) -> None:
        world = self._world()
        found = [each for each in world.problems() if (each.kind, each.field) == (KIND, FIELD)]
        self._since = {each: self._since.get(each, now) for each in found}
        for each, since in self._since.items():
            if now - since >= LASTING_S:
                pod = world.workloads[each.key]
                subject = Subject(api_version="v1", kind=KIND, namespace=pod.namespace, name=pod.name, uid=pod.uid)
                note = f"{each.field}: expected {each.expected}, found {each.found}; {INSTEAD}"
                self._events.warn(subject, "Configure", "AddressContested", note)
