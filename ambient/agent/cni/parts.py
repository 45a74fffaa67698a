"""The parts that starting pods need, made and wired: one thing for the agent to start, to ask, and to close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ambient import config
from ambient.agent.cni.fate import Fate
from ambient.agent.cni.gate import Gate
from ambient.agent.cni.install import Installer
from ambient.agent.cni.namespaces import MARK, Namespaces
from ambient.agent.cni.sandboxes import Sandboxes
from ambient.agent.cni.server import CniServer

if TYPE_CHECKING:
    from ambient.agent.enrolment import Enrolment
    from ambient.agent.worlds import Worlds


class Cni:
    def __init__(self, settings: config.AgentSettings) -> None:
        run_dir = settings.run_dir
        self._exempt = frozenset({settings.mesh.root_namespace, *settings.cni_exempt})
        self._mark = run_dir / MARK
        self._mark.unlink(missing_ok=True)  # whoever starts an agent wants the mesh
        self._socket = run_dir / "cni.sock"
        self._installer = (
            Installer(*settings.cni_dirs, run_dir, self._exempt, settings.cni_agents) if settings.cni_dirs else None
        )
        self._server: CniServer | None = None
        self._fate = Fate(settings.daemonset) if settings.daemonset else None
        self.sandboxes = Sandboxes(run_dir / "sandboxes")
        self.namespaces = Namespaces(run_dir)

    @property
    def is_leaving(self) -> bool:
        """The mesh is being taken off this node (`ambient uninstall`)."""
        return self._mark.exists()

    @property
    def gone(self) -> str:
        """A sentence, if this agent saw its DaemonSet go; else empty."""
        return self._fate.gone if self._fate is not None else ""

    @property
    def problem(self) -> str:
        """What keeps the plugin from being used, where it is to be."""
        return self._installer.problem if self._installer is not None else ""

    async def start(self, worlds: Worlds, enrolment: Enrolment, settle: Callable[[], Awaitable[None]]) -> None:
        """Answer the plugin. Raises OSError."""
        gate = Gate(worlds, enrolment, settle, self.sandboxes, self.namespaces, self._exempt)
        self._server = CniServer(self._socket, gate.answer)
        await self._server.start()
        if self._fate is not None:
            self._fate.start()

    async def run(self) -> None:
        """Keep the plugin installed; never returns. For when there is a World: a node without holds up nobody."""
        if self._installer is None:
            await asyncio.Event().wait()
        else:
            await self._installer.run()

    async def close(self) -> None:
        """What is known of the sandboxes stays for the next agent, unless there is to be none."""
        if self._fate is not None:
            self._fate.close()
        if self._server is not None:
            await self._server.close()
        self.sandboxes.close(forget=self.is_leaving)
        if self.is_leaving:
            self.namespaces.remove()
