"""One long-lived program of the cluster: started into its own cgroup, found and ended by that. Knows no Kubernetes.

Nobody stays behind to supervise: a program is nobody's child, its log is a file, and its cgroup tells whether it lives.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ambient.lab import cgroups
from ambient.lab.process import last_lines
from hack.kube import cgroups as hierarchies
from hack.kube import layout
from hack.kube.errors import ClusterError

PAUSE_MS = 50  # between two looks at what gives no event


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    cgroup: Path  # its own, in the v2 hierarchy

    @property
    def log(self) -> Path:
        return layout.LOGS / f"{self.name}.log"

    def start(
        self,
        command: Sequence[str | Path],
        *,
        enter: Sequence[str] = (),
        prepare: Callable[[], None] | None = None,
        keep: Sequence[int] = (),
    ) -> None:
        """Start the command, if it is not running. `enter`: the words before it that lead into its namespaces.
        `prepare` runs in the new process before it joins its cgroup, `keep` are descriptors to leave open."""
        if self.pids():
            return
        self.cgroup.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)

        def join() -> None:
            if prepare is not None:
                prepare()
            cgroups.join(self.cgroup)

        with self.log.open("ab") as log:
            try:
                subprocess.run(
                    ["setsid", "--fork", *enter, *map(str, command)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    preexec_fn=join,  # safe: one thread; the child is in its cgroup before anybody can miss it
                    pass_fds=keep,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise ClusterError(f"{self.name} could not be started: {error}; see {self.log}") from error

    def pids(self) -> list[int]:
        return hierarchies.pids(self.cgroup)

    def stop(self) -> None:
        """SIGKILL, and wait for the end. What it started in other cgroups lives on."""
        cgroups.kill(self.cgroup)

    def until(self, what: str, ready: Callable[[], bool], *, within: float) -> None:
        """Return when `ready` says so. Raises ClusterError at the deadline, and at once when the program ends."""
        deadline = time.monotonic() + within
        events = os.open(self.cgroup / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poller = select.poll()
            poller.register(events, select.POLLPRI)  # the kernel's notice that the last process left
            while not ready():
                if b"populated 0" in os.pread(events, 4096, 0):
                    raise ClusterError(f"{self.name} ended; {what} was awaited. {self.said()}")
                if time.monotonic() > deadline:
                    raise ClusterError(f"{self.name}: not within {within:g} s: {what}. {self.said()}")
                poller.poll(PAUSE_MS)
        finally:
            os.close(events)

    def said(self) -> str:
        return f"The end of {self.log}:\n{last_lines(self.log)}"
