"""One pod on its node, as kubelet and the container runtime would have it: sandbox, containers, status, end."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ambient.lab import cgroups, network, process, tasks
from ambient.lab.addressing import NodeAddresses
from ambient.lab.container import Container, environment
from ambient.lab.errors import Environment
from ambient.lab.layout import Layout, netns_path
from ambient.lab.manifests import Key
from ambient.lab.network import PodAddresses
from ambient.lab.probes import Prober
from ambient.lab.process import Entrance, NewSandbox, Sandbox

HOSTS, RESOLV = "hosts", "resolv.conf"
AGAIN_S = 10.0  # after a sandbox that could not be made


class Pod:
    """Made with a netns that is wired already, or the node's own. start() runs the containers, stop() ends it all."""

    def __init__(
        self,
        layout: Layout,
        key: Key,
        manifest: Mapping[str, Any],
        *,
        node: NodeAddresses,
        ips: PodAddresses,
        number: int | None,  # of the node's pod addresses; None: it uses the node's network
        on_change: Callable[[], None],
    ) -> None:
        self.key, self.node, self.ips, self.number = key, node, ips, number
        self.uid: str = manifest["metadata"]["uid"]
        self.node_name: str = manifest["spec"]["nodeName"]
        self.host_network = number is None
        self.netns = layout.node_netns(self.node_name) if self.host_network else layout.pod_netns(key.pod)
        self.log = layout.pod_log(key.pod)
        self.cgroup = layout.pod_cgroup(self.node_name, self.uid)
        self._etc = layout.pod_etc(key.pod)
        self._node_netns = netns_path(layout.node_netns(self.node_name))
        self._manifest = manifest
        self._on_change = on_change
        self._pause: subprocess.Popen[bytes]
        self._sandbox = Sandbox(0)
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.containers: list[Container] = []

    @property
    def pause_pid(self) -> int:
        return self._sandbox.pid

    def make_sandbox(self, hosts: str, resolv_conf: str) -> None:
        """The cgroup and the process that holds the namespaces: from here on an agent can find the pod."""
        self._etc.mkdir(parents=True)
        (self._etc / HOSTS).write_text(hosts)
        (self._etc / RESOLV).write_text(resolv_conf)
        self.cgroup.mkdir(parents=True)
        self._start_pause()

    def _start_pause(self) -> None:
        sandbox = NewSandbox(
            entrance=Entrance(cgroup=self.cgroup, netns=netns_path(self.netns)),
            hostname=self.key.name[:63],
            binds={Path("/etc/hosts"): self._etc / HOSTS, Path("/etc/resolv.conf"): self._etc / RESOLV},
        )
        with self.log.open("ab") as log:
            try:
                self._pause = process.start(["sleep", "infinity"], enter=sandbox, env=process.base_env(), output=log)
            except process.CannotStart as error:
                said = process.last_lines(self.log)
                raise Environment(f"{self.key}: its sandbox cannot be made: {error}\n{said}") from error
        self._sandbox.pid = self._pause.pid

    def start(self) -> None:
        """Run the containers, from now until stop()."""
        described = {**self._manifest, "status": self.status()}
        for number, spec in enumerate(self._manifest["spec"]["containers"]):
            spec = {"name": f"container-{number}", **spec}
            env = environment(spec, described)
            # Its own cgroup below the pod's: what a program leaves behind is ended with it.
            cgroup = self.cgroup / f"container{number}"
            cgroup.mkdir()
            entrance = Entrance(cgroup=cgroup, netns=netns_path(self.netns), sandbox=self._sandbox)
            ports = {row["name"]: row["containerPort"] for row in spec.get("ports") or () if "name" in row}
            prober = Prober(node_netns=self._node_netns, pod_ip=self.ips[0], ports=ports, entrance=entrance, env=env)
            self.containers.append(
                Container(
                    spec,
                    policy=self._manifest["spec"].get("restartPolicy", "Always"),
                    entrance=entrance,
                    prober=prober,
                    env=env,
                    log=self.log,
                    on_change=self._on_change,
                )
            )
        self._run_containers()
        self._keeper = tasks.guarded(self._keep_sandbox(), f"{self.key} sandbox")

    def _run_containers(self) -> None:
        running = [row for row in self.containers if row.finished is None]
        self._tasks = [tasks.guarded(row.run(), f"{self.key} {row.spec['name']}") for row in running]

    async def _end_containers(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_sandbox(self) -> None:
        """The pause process may be killed as any other: its containers are then started again in another sandbox."""
        while True:
            await process.ended(self._pause)
            await self._end_containers()
            try:
                self._start_pause()
            except Environment:  # which is in the pod's log
                await asyncio.sleep(AGAIN_S)
                continue
            for row in self.containers:
                row.restarts += row.finished is None
            self._run_containers()

    async def stop(self) -> None:
        """Kill what runs and remove the cgroup; the caller unwires the netns."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._end_containers()
        await asyncio.to_thread(cgroups.kill, self.cgroup)
        if self._sandbox.pid:
            self._pause.wait()
        cgroups.remove(self.cgroup)
        for file in (HOSTS, RESOLV):
            (self._etc / file).unlink(missing_ok=True)
        self._etc.rmdir()

    def set_hosts(self, text: str) -> None:
        """Rewrite /etc/hosts in place (it is bind-mounted: a renamed file would not be seen).

        One write, padded to the old length, then cut: a reader in between sees no half of a line that matters.
        """
        path = self._etc / HOSTS
        new = text.encode()
        with path.open("r+b", buffering=0) as file:
            old = file.read()
            if old == new:
                return
            file.seek(0)
            file.write(new.ljust(len(old), b"\n"))
            file.truncate(len(new))

    @property
    def ready(self) -> bool:
        return bool(self.containers) and all(row.ready for row in self.containers)

    @property
    def finished(self) -> bool:
        """Its restart policy leaves it ended: nobody waits for it to become ready."""
        return bool(self.containers) and all(row.finished is not None for row in self.containers)

    @property
    def hopeless(self) -> bool:
        """One of its programs cannot be started: nobody needs to wait."""
        return any(row.hopeless for row in self.containers)

    @property
    def why(self) -> str:
        """Why it is not ready, in a line; empty when it is, or needs not be."""
        if self.ready or self.finished:
            return ""
        reasons = [f"{row.spec['name']}: {row.trouble}" for row in self.containers if not row.ready]
        return "; ".join(reasons) or "its containers were not started"

    def trouble(self) -> str:
        """Why it is not ready, with the end of its log."""
        said = process.last_lines(self.log)
        shown = said.replace("\n", "\n      | ")
        log = f"\n    its log ends:\n      | {shown}" if said else "\n    its log is empty"
        return f"pod {self.key.pod} is not ready: {self.why}{log}"

    def environment(self) -> dict[str, str]:
        """What `exec` runs with: the first container's variables."""
        return environment(self._manifest["spec"]["containers"][0], {**self._manifest, "status": self.status()})

    def status(self) -> dict[str, Any]:
        """Kubernetes' pod status."""
        phase = "Running" if self.containers else "Pending"
        if self.finished:
            phase = "Succeeded" if all(row.finished == 0 for row in self.containers) else "Failed"
        ready = "True" if self.ready else "False"
        return {
            "phase": phase,
            "hostIP": str(self.node.ips[0]),
            "hostIPs": [{"ip": str(ip)} for ip in self.node.ips],
            "podIP": str(self.ips[0]),
            "podIPs": [{"ip": str(ip)} for ip in self.ips],
            "conditions": [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")],
            "containerStatuses": [row.status() for row in self.containers],
        }


def unwire(net: network.Network, pod: Pod) -> None:
    if not pod.host_network:
        net.remove_pod(pod.key.pod, pod.node_name)
