"""This node's sandboxes: their open network namespaces, and their files, from which the next agent goes on.

A file per sandbox in RUN_DIR/sandboxes, written before the pod may start, gone with the sandbox. It names the namespace
by its cookie: the descriptor itself comes back from a listening socket that the engine kept.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from ambient.agent.cni import sandbox as values
from ambient.agent.cni.files import sweep, write_atomically
from ambient.agent.cni.sandbox import Sandbox
from ambient.capture.netns import PodNetns
from ambient.model.mesh import IPAddress, Workload, address
from ambient.model.world import World

log = logging.getLogger(__name__)


class Sandboxes:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_pod: dict[str, Sandbox] = {}  # by the pod's UID: it has one at a time
        self._netns: dict[int, PodNetns] = {}  # by cookie

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(tuple(self._by_pod.values()))

    def restore(self, captured: Collection[int], open_netns: Callable[[int], PodNetns]) -> None:
        """Read what an earlier agent wrote. `captured`: cookies that are; `open_netns`: raises KeyError if it cannot.

        A namespace that cannot be opened is looked for by its processes, as that of any other pod.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(self._folder)
        for path in sorted(self._folder.iterdir()):
            try:
                found = _read(path.read_text())
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s is not of this version: %s", path, error)
                found = None
            if found is None or found.cookie not in captured:
                path.unlink()  # it is gone, or was never captured
                continue
            self._by_pod[found.uid] = found
            with contextlib.suppress(KeyError):
                self._netns[found.cookie] = open_netns(found.cookie)

    def arrive(self, container: str, netns: PodNetns, addresses: tuple[IPAddress, ...], workload: Workload) -> Sandbox:
        """Takes `netns` over. Raises OSError when it cannot be written down."""
        before = self._by_pod.get(workload.uid)
        now = values.arrived(container, netns.cookie, addresses, workload, before)
        write_atomically(self._folder / container, _text(now))
        if before is not None:
            self._forget(before, but=now)
        self._by_pod[workload.uid] = now
        if already := self._netns.get(netns.cookie):
            already.close()
        self._netns[netns.cookie] = netns
        return now

    def depart(self, container: str, world: World | None) -> bool:
        """The sandbox is taken down; whether it was one of these. The runtime may say so again and again."""
        for sandbox in self:
            if sandbox.container == container and sandbox.addresses:
                workload = world.workloads.get(sandbox.pod) if world is not None else None
                self._by_pod[sandbox.uid] = values.departed(sandbox, workload)
                self._forget(sandbox)
                return True
        return False

    def overlay(self, world: World) -> World:
        """The World as the sandboxes know better. Those of pods that it does not know any more are forgotten."""
        for sandbox in self:
            if values.is_over(world, sandbox):
                del self._by_pod[sandbox.uid]
                self._forget(sandbox)
        return values.overlay(world, self._by_pod.values())

    def netns_of(self, uid: str) -> PodNetns | None:
        """The namespace of the pod's sandbox, if it is known and open. It stays ours."""
        sandbox = self._by_pod.get(uid)
        return self._netns.get(sandbox.cookie) if sandbox is not None and sandbox.addresses else None

    def close(self, *, forget: bool = False) -> None:
        """`forget`: there will be no next agent."""
        for netns in self._netns.values():
            netns.close()
        self._netns.clear()
        if forget:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _forget(self, sandbox: Sandbox, but: Sandbox | None = None) -> None:
        if but is None or but.container != sandbox.container:
            (self._folder / sandbox.container).unlink(missing_ok=True)
        if netns := self._netns.pop(sandbox.cookie, None):
            netns.close()


def _text(sandbox: Sandbox) -> str:
    return json.dumps(
        {
            "container": sandbox.container,
            "pod": sandbox.pod,
            "uid": sandbox.uid,
            "cookie": sandbox.cookie,
            "addresses": [str(ip) for ip in sandbox.addresses],
            "stale": sorted(sorted(str(ip) for ip in ips) for ips in sandbox.stale),
        }
    )


def _read(text: str) -> Sandbox:
    body = json.loads(text)
    return Sandbox(
        container=str(body["container"]),
        pod=str(body["pod"]),
        uid=str(body["uid"]),
        cookie=int(body["cookie"]),
        addresses=tuple(address(ip) for ip in body["addresses"]),
        stale=frozenset(frozenset(address(ip) for ip in ips) for ips in body["stale"]),
    )
