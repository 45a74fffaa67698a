"""The mesh on one node, as a DaemonSet would keep it: start the agent, start it again, ask it over its admin socket.

The lab never reaches into an agent: it knows the command line, the admin verbs `status` and `wait`, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from ambient.lab import cgroups, linux, process, rpc, tasks
from ambient.lab.layout import Layout, netns_path
from ambient.lab.process import Entrance

RESTART_S, RESTART_MAX_S = 0.25, 5.0  # an agent that dies early twice in a row waits so long, doubling
HEALTHY_S = 2.0  # one that lived this long is restarted at once
ASK_AGAIN_S = 0.05  # a starting agent has no socket yet, and a unix socket's appearing is no event worth an inotify
log = logging.getLogger(__name__)


class Agent:
    """One node's agent, from start() to stop()."""

    def __init__(self, layout: Layout, node: str, command: tuple[str, ...]) -> None:
        self.node = node
        self.pid = 0
        self.restarts = -1  # the first start is none
        self._layout = layout
        self._command = command
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        bpffs = self._layout.bpffs(self.node)
        bpffs.mkdir(parents=True)
        self._layout.run_dir(self.node).mkdir(mode=0o700)
        self._layout.agent_cgroup(self.node).mkdir(parents=True)
        # A bpffs of its own: every mount is another instance, so its pins end with it whatever the agent forgot.
        linux.mount("bpf", bpffs, "bpf")
        self._task = tasks.guarded(self._run(), f"agent {self.node}")

    async def stop(self) -> None:
        """End agent and engine, and drop every pin: the links go with the bpffs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(cgroups.kill, self._layout.agent_cgroup(self.node))
        cgroups.remove(self._layout.agent_cgroup(self.node))
        linux.umount(self._layout.bpffs(self.node), linux.MNT_DETACH)
        self._layout.bpffs(self.node).rmdir()  # also takes the mount out of every other mount namespace

    async def _run(self) -> None:
        where = Entrance(
            cgroup=self._layout.agent_cgroup(self.node), netns=netns_path(self._layout.node_netns(self.node))
        )
        pause = 0.0
        with self._layout.agent_log(self.node).open("ab", buffering=0) as output:
            while True:
                began = time.monotonic()
                child = process.start(self._arguments(), enter=where, env=os.environ, output=output)
                self.pid = child.pid
                self.restarts += 1
                try:
                    code = await process.ended(child)
                finally:
                    self.pid = 0
                    child.kill()  # when we are told to stop; one that has ended is not hurt
                    child.wait()
                log.warning("agent %s: %s", self.node, process.describe_exit(code))
                if time.monotonic() - began >= HEALTHY_S:
                    pause = 0.0
                await asyncio.sleep(pause)
                pause = min(RESTART_MAX_S, pause * 2) if pause else RESTART_S

    def _arguments(self) -> list[str]:
        layout, node = self._layout, self.node
        options = {
            "--node": node,
            "--source": layout.cluster,
            "--ca-dir": layout.ca,
            "--cgroup": layout.node_cgroup(node),
            "--bpffs": layout.bpffs(node),
            "--run-dir": layout.run_dir(node),
        }
        return [*self._command, "agent", *(str(word) for option in options.items() for word in option)]

    async def status(self) -> dict[str, Any] | None:
        """Its own account of itself; None while it cannot be asked."""
        try:
            async with asyncio.timeout(2.0):
                answer = await rpc.ask(self._layout.admin(self.node), "status")
        except (OSError, TimeoutError, rpc.AgentSaid):
            return None
        return dict(answer)

    async def converged(self, revision: str, deadline: float) -> str:
        """Wait until it works by exactly this revision. Returns "" or what it lacks at the deadline (monotonic)."""
        problem = "it was not asked yet"
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left + 1.0):
                    await rpc.ask(self._layout.admin(self.node), "wait", revision=revision, timeout_s=round(left, 3))
            except (OSError, TimeoutError) as error:
                problem = f"its admin socket does not answer ({str(error) or 'silence'})"
                await asyncio.sleep(min(ASK_AGAIN_S, left))
            except rpc.AgentSaid as error:
                problem = str(error)
                await asyncio.sleep(min(ASK_AGAIN_S, left))
            else:
                return ""
        return await self._trouble(problem)

    async def _trouble(self, problem: str) -> str:
        status = await self.status()
        if status is not None:
            details = [*status.get("blockers", ()), *status.get("errors", ())]
            named = ", ".join(details) or "nothing it names"
            return f"agent {self.node} has not converged: {problem}; it waits for: {named}"
        said = process.last_lines(self._layout.agent_log(self.node), records=False).replace("\n", "\n      | ")
        return f"agent {self.node} has not converged: {problem}\n    its log ends:\n      | {said or '(empty)'}"
