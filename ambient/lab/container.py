"""One container of a pod: run its program, start it again as kubelet would, ask its readiness probe. Only reports."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ambient.lab import cgroups, process, tasks
from ambient.lab.probes import ProbeFailed, Prober, Timing
from ambient.lab.process import Entrance

# kubelet's: the first restart is immediate, then 10 s doubling to 5 min, forgotten after 10 min of running.
BACKOFF_S, BACKOFF_MAX_S, BACKOFF_RESET_S = 10.0, 300.0, 600.0
# Until the first success kubelet may probe more often than periodSeconds; we do, so that a pod is ready when it is.
EAGER_S, EAGER_MAX_S = 0.03, 0.3
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


class Container:
    """Runs from run() until that is cancelled or the restart policy says it is enough."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        policy: str,
        entrance: Entrance,
        prober: Prober,
        env: Mapping[str, str],
        log: Path,
        on_change: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.ready = False
        self.restarts = 0
        self.state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self.trouble = "not started yet"  # why it is not ready, in words
        self.finished: int | None = None  # the exit code it was left with
        self.hopeless = False  # its program cannot be started at all: waiting will not help
        self._policy = policy
        self._entrance = entrance
        self._prober = prober
        self._env = env
        self._log = log
        self._on_change = on_change

    async def run(self) -> None:
        backoff = 0.0
        with self._log.open("ab", buffering=0) as log:
            while True:
                began = time.monotonic()
                code = await self._once(log)
                if self._policy == "Never" or (self._policy == "OnFailure" and code == 0):
                    self.finished = code
                    reason = "Completed" if code == 0 else "Error"
                    self._become(False, {"terminated": {"exitCode": code, "reason": reason}})
                    return
                if time.monotonic() - began > BACKOFF_RESET_S:
                    backoff = 0.0
                why = f"CrashLoopBackOff: next start in {backoff:.0f} s" if backoff else "Restarting"
                self._become(False, {"waiting": {"reason": why.partition(":")[0], "message": self.trouble}})
                log.write(f"lab: {self.spec['name']}: {self.trouble}; {why}\n".encode())
                await asyncio.sleep(backoff)
                backoff = min(BACKOFF_MAX_S, backoff * 2) if backoff else BACKOFF_S
                self.restarts += 1

    async def _once(self, log: IO[bytes]) -> int:
        """One life of the program. Its exit code; 128 when it could not be started, as a container runtime says it."""
        command = [expand(word, self._env) for word in (*self.spec["command"], *self.spec.get("args", ()))]
        try:
            child = process.start(command, enter=self._entrance, env=self._env, output=log)
        except process.CannotStart as error:
            self.trouble = f"cannot be started: {error}"
            self.hopeless = True
            return 128
        self.hopeless = False
        prober = tasks.guarded(self._probe(), f"probe {self.spec['name']}")
        try:
            code = await process.ended(child)
        finally:
            prober.cancel()
            cgroups.kill(self._entrance.cgroup)
            child.wait()
        self.trouble = f"its program ended: {process.describe_exit(code)}"
        return code

    async def _probe(self) -> None:
        """Keep `ready` true to the readiness probe while the program runs."""
        running: dict[str, Any] = {"running": {}}
        probe = self.spec.get("readinessProbe")
        if probe is None:
            self._become(True, running)
            return
        self.trouble = "its readiness probe was not tried yet"
        self._become(False, running)
        timing = Timing.of(probe)
        await asyncio.sleep(timing.initial_delay)
        pause, good, bad = EAGER_S, 0, 0
        while True:
            try:
                await self._prober.attempt(probe, timing.timeout)
            except ProbeFailed as error:
                good, bad = 0, bad + 1
                self.trouble = f"its readiness probe failed {bad} times: {error}"
                if self.ready and bad >= timing.failures:
                    self._become(False, running)
            else:
                good, bad = good + 1, 0
                if not self.ready and good >= timing.successes:
                    self._become(True, running)
            pause = timing.period if self.ready else min(timing.period, EAGER_MAX_S, pause * 1.5)
            await asyncio.sleep(pause)

    def _become(self, ready: bool, state: dict[str, Any]) -> None:
        if ready:
            self.trouble = ""
        if (ready, state) != (self.ready, self.state):
            self.ready, self.state = ready, state
            self._on_change()

    def status(self) -> dict[str, Any]:
        """Kubernetes' containerStatuses entry."""
        return {
            "name": self.spec["name"],
            "ready": self.ready,
            "started": "running" in self.state,
            "restartCount": self.restarts,
            "state": self.state,
        }


def expand(text: str, env: Mapping[str, str]) -> str:
    """Kubernetes' $(NAME) in command and args; an unknown name stays as it is, $$ is a dollar."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else env.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def environment(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
    """A container's variables: the base, then its own in order, with $(NAME) of the earlier ones."""
    env = process.base_env() | {"HOSTNAME": pod["metadata"]["name"]}
    for variable in spec.get("env") or ():
        if "valueFrom" in variable:
            env[variable["name"]] = _field(pod, variable["valueFrom"]["fieldRef"]["fieldPath"])
        else:
            env[variable["name"]] = expand(str(variable.get("value", "")), env)
    return env


def _field(pod: Mapping[str, Any], path: str) -> str:
    """The downward API's fieldPath (see podspec.FIELD_PATHS)."""
    found: Any = pod
    for part in path.split("."):
        found = found.get(part, "") if isinstance(found, Mapping) else ""
    if path == "spec.serviceAccountName":
        return found or "default"
    return ",".join(row["ip"] for row in found) if isinstance(found, list) else str(found)
