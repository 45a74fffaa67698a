"""The World that the agent goes by: the newest that came, as this node's sandboxes know better. No I/O but the file.

What differs between one and the next is known without comparing them, so the cost of a change is that of what changed.
"""

from __future__ import annotations

import asyncio

from ambient.agent.cni.namespaces import Namespaces
from ambient.agent.cni.sandboxes import Sandboxes
from ambient.model.mesh import MeshConfig
from ambient.model.world import World, diff


class Worlds:
    def __init__(self, mesh: MeshConfig, sandboxes: Sandboxes, namespaces: Namespaces) -> None:
        self.world = self._none = World.build(mesh=mesh)
        self.source: World | None = None  # as it came; None before the first
        self.news = asyncio.Condition()  # notified when there is another
        self._sandboxes, self._namespaces = sandboxes, namespaces

    async def take(self, source: World) -> frozenset[str]:
        """Go by this one; the last once more, when the sandboxes are others. Returns the tokens of what changed."""
        before, was = self.source or self._none, self.world
        changes = diff(before, source)
        self.source, self.world = source, self._sandboxes.overlay(source)
        self._namespaces.revise(source, changes)
        async with self.news:
            self.news.notify_all()
        # By way of the two sources: each step was made from one of its ends, so its difference is at hand.
        return diff(before, was).touched() | changes.touched() | diff(source, self.world).touched()
